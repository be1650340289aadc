"""Drawing tokens: which one a row of logits gives for a number in [0, 1), and the numbers themselves."""

from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray


def uniforms(seed: int, prompt: list[int], count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) that depend on the seed and the prompt alone, by a counter-based generator."""
    digest = blake2b(np.asarray(prompt, dtype=np.int64).tobytes(), digest_size=16, key=str(seed).encode()[:64]).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big"))).random(count)


@torch.inference_mode()
def draw(
    logits: torch.Tensor, temperature: float, top_p: float, numbers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens for ``logits`` (..., vocabulary) float32 and ``numbers`` (...) float64, and their log p at temperature 1.

    Inverse transform sampling: the token at which the cumulated probabilities pass the number. Rows do not touch one
    another, so what a row draws does not depend on its company. Temperature 0 takes the likeliest token. ``top_p``
    keeps the smallest set of likeliest tokens whose mass reaches it (Holtzman et al., arXiv 1904.09751).
    """
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities = (logits / temperature).softmax(-1)
        if top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1, dtype=torch.float64) - ordered
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(before >= top_p, 0))
        cumulated = probabilities.cumsum(-1, dtype=torch.float64)
        targets = (numbers * cumulated[..., -1]).unsqueeze(-1)
        tokens = torch.searchsorted(cumulated, targets, right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
