"""Prompts longer than CLIP reads, by parts: each is read alone, with a begin and an end of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..quiet import quietly
from ..text import Encoded


def count(tokenizers: Sequence[Any], text: str) -> int:
    """How many parts a prompt has: those of the tokenizer that needs the most, at least one."""
    return max(len(_cut(tokenizer, text)) for tokenizer in tokenizers)


def encoded(tokenizers: Sequence[Any], encoders: Sequence[Any], text: str, parts: int) -> Encoded:
    """A prompt as SD's one CLIP encoder or SDXL's two have it, (1, parts M, width), M tokens a part: their outputs side
    by side, part after part, with empty parts at the end where it has fewer. The vector of SDXL is that of the first.

    Of one encoder this is its last output, of two that of the layer before the last one each, as in the pipelines.
    """
    hidden, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        ids = _ids(tokenizer, text, parts).to(encoder.device)
        end = ids == tokenizer.eos_token_id
        attended = end.cumsum(1) - end.long() == 0 if getattr(encoder.config, "use_attention_mask", False) else None
        out = encoder(ids, attention_mask=attended, output_hidden_states=len(encoders) > 1)
        hidden.append(out.hidden_states[-2] if len(encoders) > 1 else out[0])
        if len(encoders) > 1 and out[0].ndim == 2:
            pooled = out[0][:1]
    return Encoded(torch.cat(hidden, -1).flatten(0, 1)[None], pooled)


def _cut(tokenizer: Any, text: str) -> list[list[int]]:
    """The tokens of a prompt, in parts of as many as an encoder reads beside the marks of begin and end."""
    most = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    with quietly():  # they are more than it reads at once
        ids = tokenizer(text, add_special_tokens=False).input_ids
    return [ids[i : i + most] for i in range(0, len(ids), most)] or [[]]


def _ids(tokenizer: Any, text: str, parts: int) -> Tensor:
    """The tokens (parts, M) of a prompt, each part with its marks, and filled up as the tokenizer does it."""
    cut = _cut(tokenizer, text)
    rows = [[tokenizer.bos_token_id, *part, tokenizer.eos_token_id] for part in [*cut, *[[]] * (parts - len(cut))]]
    longest = tokenizer.model_max_length
    return torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
