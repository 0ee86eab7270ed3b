#!/usr/bin/env bash
# transformers 5.24.0, CSM: settings of the depth decoder that were saved are not read again. save_pretrained writes them
# as depth_decoder_* into generation_config.json, also into one that says `_from_model_config`, as that of each model
# made of its configuration does; and from such a file from_pretrained takes no key that it does not know. A temperature
# of 0.5 or suppressed codes are gone without a word. Saved once the model's settings are said to be its own, they stay.
#
# And speech ends where all codes of a frame but the last are the end's: the last one is not looked at, though the audio
# is then cut at frames whose codes are all the end's, so that such a frame is heard.
#
# Seen: Python 3.11.7, torch 2.11.0. Output then:
#   as made: temperature 0.5 saved, None read
#   said to be its own: temperature 0.5 saved, 0.5 read
#   frames [[0, 0, 0, 7]] of 6 asked for, 1920 samples heard
# What follows: clear `_from_model_config` before saving; drop the frame that ended speech before decoding.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.11.0

cat > "$folder/csm.py" <<'PYTHON'
import sys

import torch
from transformers import CsmConfig, CsmForConditionalGeneration

folder = sys.argv[1]
width = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
config = CsmConfig(
    num_codebooks=4, vocab_size=11, text_vocab_size=32, hidden_size=32, num_hidden_layers=1, **width,
    codebook_eos_token_id=0, codebook_pad_token_id=10, bos_token_id=1, pad_token_id=0, audio_token_id=3,
    audio_eos_token_id=4, max_position_embeddings=64,
    depth_decoder_config={
        "num_codebooks": 4, "backbone_hidden_size": 32, "vocab_size": 11, "hidden_size": 16, "num_hidden_layers": 1,
        "max_position_embeddings": 5, **width,
    },
    codec_config={
        "model_type": "mimi", "num_filters": 2, "hidden_size": 16, "num_hidden_layers": 1, "head_dim": 8,
        "upsample_groups": 16, "codebook_size": 8, "codebook_dim": 8, "vector_quantization_hidden_dimension": 8,
        "num_quantizers": 4, **width,
    },
)
model = CsmForConditionalGeneration(config).eval()

found = []
for name in ("as made", "said to be its own"):
    model.depth_decoder.generation_config.temperature = 0.5
    if name == "said to be its own":
        for part in (model, model.depth_decoder):
            part.generation_config._from_model_config = False
    model.save_pretrained(folder)
    again = CsmForConditionalGeneration.from_pretrained(folder)
    found.append(again.depth_decoder.generation_config.temperature)
    print(f"{name}: temperature 0.5 saved, {found[-1]} read")
assert found == [None, 0.5]

# Each first code is 0, and behind it 0, 0 and 7.
with torch.no_grad():
    model.lm_head.weight.zero_()


def sevens(hidden_states, codebook_indices=None):
    logits = torch.zeros(*hidden_states.shape[:2], 11)
    last = codebook_indices == 3
    logits[:, ~last, 0] = 1.0
    logits[:, last, 7] = 1.0
    return logits


model.depth_decoder.codebooks_head.forward = sevens
ids = torch.tensor([[1, 5, 6]])
how = {"do_sample": False, "depth_decoder_do_sample": False, "max_new_tokens": 6}
frames = model.generate(input_ids=ids, **how)[0].tolist()
(heard,) = model.generate(input_ids=ids, output_audio=True, **how)
print(f"frames {frames} of 6 asked for, {heard.shape[-1]} samples heard")
assert frames == [[0, 0, 0, 7]]
assert heard.shape[-1] == 1920
PYTHON
"$folder/venv/bin/python" "$folder/csm.py" "$folder/model" 2>/dev/null
