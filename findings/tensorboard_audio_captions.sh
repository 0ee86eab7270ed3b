#!/usr/bin/env bash
# tensorboard 2.21.0: what stands beside a clip depends on which of its two loaders reads the file. Clips of the older kind
# (`Summary.Value.audio`, which torch's SummaryWriter.add_audio writes) lose name, description and content type in the
# default, fast loader; with --load_fast=false they have all three. Clips of the newer kind (a tensor and the audio
# plugin's metadata) keep them in both. The label that the newer kind has for each clip is served by neither.
#
# Seen: Python 3.11.7, tensorboard-data-server 0.7.2. Output then:
#   fast   older: name '', description '', label '', application/octet-stream
#   fast   newer: name 'one', description '<p>said: one</p>', label '', audio/wav
#   slow   older: name 'one', description '<p>said: one</p>', label '', audio/wav
#   slow   newer: name 'one', description '<p>said: one</p>', label '', audio/wav
# What follows for transcripts beside samples of speech: write the newer kind, one tag for each clip, and the text as the
# tag's description.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorboard==2.21.0 tensorboard-data-server==0.7.2 'setuptools<81'

cat > "$folder/serve.py" <<'PYTHON'
import io
import json
import sys
import time
import wave
from urllib.parse import urlencode
from urllib.request import urlopen

from tensorboard import program
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.audio.metadata import create_summary_metadata
from tensorboard.plugins.audio.plugin_data_pb2 import AudioPluginData
from tensorboard.summary.writer.event_file_writer import EventFileWriter

logdir, loader = sys.argv[1:]

# A tenth of a second of silence.
file = io.BytesIO()
with wave.open(file, "wb") as sound:
    sound.setnchannels(1)
    sound.setsampwidth(2)
    sound.setframerate(8000)
    sound.writeframes(bytes(1600))
clip = file.getvalue()

older = Summary.Value(
    tag="older",
    audio=Summary.Audio(
        sample_rate=8000, num_channels=1, length_frames=800, encoded_audio_string=clip, content_type="audio/wav"
    ),
    metadata=SummaryMetadata(display_name="one", summary_description="said: one"),
)
tensor = TensorProto(dtype="DT_STRING", string_val=[clip, b"a label"])
for size in (1, 2):
    tensor.tensor_shape.dim.add(size=size)
wav = AudioPluginData.Encoding.Value("WAV")
newer = Summary.Value(tag="newer", tensor=tensor, metadata=create_summary_metadata("one", "said: one", encoding=wav))

writer = EventFileWriter(logdir)
writer.add_event(Event(step=1, wall_time=time.time(), summary=Summary(value=[older, newer])))
writer.flush()
writer.close()

board = program.TensorBoard()
board.configure(argv=[None, "--logdir", logdir, "--port", "0", "--load_fast", "true" if loader == "fast" else "false"])
url = board.launch() + "data/plugin/audio/"
for _ in range(120):
    runs = json.load(urlopen(url + "tags"))
    if len(runs.get(".", {})) == 2:
        break
    time.sleep(0.5)

for tag in ("older", "newer"):
    about = runs["."][tag]
    (one,) = json.load(urlopen(url + "audio?" + urlencode({"run": ".", "tag": tag, "sample": 0})))
    print(
        f"{loader}   {tag}: name {about['displayName']!r}, description {about['description']!r}, "
        f"label {one['label']!r}, {one['contentType']}"
    )
    is_lost = (loader, tag) == ("fast", "older")
    assert about["displayName"] == ("" if is_lost else "one")
    assert about["description"] == ("" if is_lost else "<p>said: one</p>")
    assert one["contentType"] == ("application/octet-stream" if is_lost else "audio/wav")
    assert one["label"] == ""
PYTHON
for loader in fast slow; do
    mkdir "$folder/$loader"
    "$folder/venv/bin/python" "$folder/serve.py" "$folder/$loader" "$loader" 2>/dev/null
done
