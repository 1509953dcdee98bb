"""Whether the converted weights answer as the GGUF file does, read by transformers itself.

    python -m benchmarks.embedded_logits

Both are loaded by transformers in float32: the model directory as it is, and the quantised file by
transformers' own reader of GGUF, which shares no code with the conversion but `gguf`. Compared are
the tokens of 20 prompts and the logits at their ends. Exits with 1 where the tokens differ, or the
logits by more than rounding. The second way of loading needs `accelerate` beside what is pinned.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents_examples.rows import Document, read_rows
from helium_agents.engines.embedded import embedded_model_dir, source_file

_NUM_PROMPTS = 20
_MOST_DIFFERENCE = 1e-3
"""Of logits whose size is about ten: the order of sums in float32 makes less than a tenth of it."""


def main() -> None:
    """Load both, compare, and print the largest difference."""
    directory, source = embedded_model_dir(), source_file()
    prompts = _prompts(AutoTokenizer.from_pretrained(directory))
    reference = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    if any(reference(text)["input_ids"] != ids for text, ids in prompts):
        sys.exit("the tokens differ")
    ours = _logits(prompts, directory)
    theirs = _logits(prompts, source.parent, gguf_file=source.name)
    difference = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    agree = sum(int(a.argmax() == b.argmax()) for a, b in zip(ours, theirs, strict=True))
    print(f"{len(prompts)} prompts, {sum(len(ids) for _, ids in prompts)} tokens")
    print(f"largest difference of a logit: {difference:.2g}; same next token: {agree}")
    if difference > _MOST_DIFFERENCE:
        sys.exit("the logits differ by more than rounding")


def _prompts(tokenizer: object) -> list[tuple[str, list[int]]]:
    """Conversations about the bundled documents, as text and as tokens."""
    prompts = []
    for document in read_rows(Document, "documents.jsonl"):
        for question in document.questions:
            content = f"{document.as_text()}\n\n{question.question}"
            text = tokenizer.apply_chat_template(  # type: ignore[attr-defined]
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            prompts.append((text, tokenizer(text)["input_ids"]))  # type: ignore[operator]
    return prompts[:_NUM_PROMPTS]


def _logits(prompts: list[tuple[str, list[int]]], path: Path, **options: str) -> list[torch.Tensor]:
    """What follows each prompt."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0, -1] for _, ids in prompts]


if __name__ == "__main__":
    main()
