"""A small Llama from scratch with its own tokenizer: an ordinary Hugging Face directory.

The tokenizer is a byte-level BPE trained on the problems' text, so that every text has tokens. Before merges apply,
text is cut into words, single digits and single symbols: ``Nat.add_comm`` becomes ``Nat`` ``.`` ``add`` ``_`` ``comm``,
which is how library names are built, and a merge never spans two of them. Each pointer (:mod:`prover.pointers`) is one
token.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prover.config import InitModel
from prover.errors import ConfigError
from prover.pointers import pointer
from prover.pretrained import placed, quiet
from prover.records import Checkpoint

POINTERS = 32
HEAD = 32
"""Width of an attention head."""

PAD, BEGIN, END = "<pad>", "<s>", "</s>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}

_WORDS = r" ?[A-Za-z]+| ?\d|\.|_| ?[^A-Za-z\d\s._]|\s"

CHAT_TEMPLATE = (
    "{{ '" + BEGIN + "' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '" + END + "' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ROLES["assistant"] + "' }}{% endif %}"
)
"""A token before each message and one after an answer; whoever speaks next is announced by the token, not by text."""


def init_model(config: InitModel, texts: Iterable[str], path: Path, seed: int) -> Checkpoint:
    """Write a random model to ``path``, in float32. The same texts, configuration and seed give the same bytes.

    Raises ConfigError for a width that does not divide into heads.
    """
    if config.hidden_size % HEAD:
        raise ConfigError(f"model.hidden_size: must be a multiple of {HEAD}, got {config.hidden_size}")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(texts, config.vocab_size, config.context)
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=max(64, config.hidden_size * 8 // 3 // 64 * 64),
        num_hidden_layers=config.layers,
        num_attention_heads=config.hidden_size // HEAD,
        num_key_value_heads=config.hidden_size // HEAD,
        max_position_embeddings=config.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(llama)
    manifest = Checkpoint(path=path.name, base_model="", step=0, recipe=f"init seed={seed} {config.model_dump_json()}")
    with placed(path, manifest) as temporary, quiet():
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return manifest


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> Any:
    """A byte-level BPE of at most ``vocab_size`` tokens, special tokens and pointers included."""
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(BPE())
    cut = [Split(Regex(_WORDS), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    bpe.pre_tokenizer = Sequence(cut)  # type: ignore[reportAttributeAccessIssue]
    bpe.decoder = ByteLevelDecoder()  # type: ignore[reportAttributeAccessIssue]
    special = [PAD, BEGIN, END, *ROLES.values()]
    trainer = BpeTrainer(
        vocab_size=vocab_size - POINTERS,
        special_tokens=special,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(pointer(i), normalized=False, special=False) for i in range(1, POINTERS + 1)])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=list(ROLES.values()),
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
