#!/usr/bin/env bash
# transformers 5.24.0 loads a folder with a LoRA adapter beside its base by peft 0.21.2, the newest release, and the model
# answers with the adapter. Every method that looks at the adapter afterwards (active_adapters, disable_adapters,
# enable_adapters, set_adapter) asks for peft >= 0.22.0, which is not released: ValueError. Granite-Speech calls two of
# them in its generate(), so that it decodes with no adapter folder at all, its own published layout among them; forward()
# does work.
#
# Seen: Python 3.11.7. Output then:
#   loaded, the adapter changes the logits: True
#   active_adapters: refused, wants peft >= 0.22.0
#   disable_adapters: refused, wants peft >= 0.22.0
#   enable_adapters: refused, wants peft >= 0.22.0
#   generate of Granite-Speech without audio: refused, wants peft >= 0.22.0
# What follows: `PeftModel.from_pretrained(base, folder)`, merged, generates; or export with adapters merged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 peft==0.21.2 torch==2.11.0 torchaudio==2.11.0

cat > "$folder/adapter.py" <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

width = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
config = GraniteSpeechConfig(
    encoder_config={"input_dim": 160, "num_layers": 2, "hidden_dim": 32, "num_heads": 2, "output_dim": 16},
    projector_config={"model_type": "blip_2_qformer", "encoder_hidden_size": 32, **width},
    text_config={"model_type": "granite", "vocab_size": 20, "num_key_value_heads": 2, "pad_token_id": 0, **width},
    audio_token_index=19,
    has_lora_adapter=True,
)
torch.manual_seed(0)
base = GraniteSpeechForConditionalGeneration(config).eval()
ids = torch.tensor([[3, 4, 5]])
before = base(input_ids=ids).logits
base.save_pretrained(sys.argv[1])

lora = LoraConfig(target_modules=r".*language_model.*\.v_proj", init_lora_weights=False)
get_peft_model(base, lora).save_pretrained(sys.argv[1])
model = GraniteSpeechForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
changed = not torch.allclose(model(input_ids=ids).logits, before, atol=1e-4)
print(f"loaded, the adapter changes the logits: {changed}")
assert changed


def refused(what, call):
    try:
        call()
    except ValueError as error:
        assert "0.22.0" in str(error), error
        print(f"{what}: refused, wants peft >= 0.22.0")
    else:
        raise AssertionError(f"{what} works: this has changed")


refused("active_adapters", model.active_adapters)
refused("disable_adapters", model.disable_adapters)
refused("enable_adapters", model.enable_adapters)
refused("generate of Granite-Speech without audio", lambda: model.generate(input_ids=ids, max_new_tokens=2))
PYTHON
"$folder/venv/bin/python" "$folder/adapter.py" "$folder/model"
