"""Conversations as the token ids that a model reads: through its chat template, or as they are for a base model."""

from collections.abc import Sequence
from typing import Any

from prover.errors import ModelError
from prover.records import ChatMessage

Conversation = Sequence[ChatMessage]


def prompt_ids(tokenizer: Any, conversations: Sequence[Conversation], where: object) -> list[list[int]]:
    """Each conversation up to where its answer begins. ``where`` names the model in errors.

    Raises ModelError where a conversation needs a chat template and the tokenizer has none.
    """
    return [ids for ids, _ in _ids(tokenizer, conversations, where, answered=False)]


def answered_ids(tokenizer: Any, conversations: Sequence[Conversation], where: object) -> list[tuple[list[int], int]]:
    """Each conversation with the answer that it ends in, end token included, and at which token the answer begins.

    The place is 0 where the tokens of the prompt are no prefix of the whole: the answer cannot be told apart then.
    """
    return _ids(tokenizer, conversations, where, answered=True)


def _ids(
    tokenizer: Any, conversations: Sequence[Conversation], where: object, *, answered: bool
) -> list[tuple[list[int], int]]:
    raw = [conversation[0].role == "text" for conversation in conversations]
    chats = [_plain(c) for c, is_raw in zip(conversations, raw) if not is_raw]
    texts = [c for c, is_raw in zip(conversations, raw) if is_raw]
    through_template = iter(_chat_ids(tokenizer, chats, where, answered=answered) if chats else ())
    as_they_are = iter(_text_ids(tokenizer, texts, answered=answered) if texts else ())
    return [next(as_they_are if is_raw else through_template) for is_raw in raw]


def _chat_ids(
    tokenizer: Any, talks: list[list[dict[str, str]]], where: object, *, answered: bool
) -> list[tuple[list[int], int]]:
    if not tokenizer.chat_template:
        raise ModelError(
            f"{where}: the tokenizer has no chat template; take the instruction-tuned model, add chat_template.jinja, "
            "or ask it as a base model (prompt.template = 'base')"
        )
    if not answered:
        return [(ids, len(ids)) for ids in _rendered(tokenizer, talks, opened=True)]
    heads = _rendered(tokenizer, [talk[:-1] for talk in talks], opened=True)
    wholes = _rendered(tokenizer, talks, opened=False)
    return [(whole, len(head) if whole[: len(head)] == head else 0) for head, whole in zip(heads, wholes)]


def _text_ids(tokenizer: Any, texts: list[Conversation], *, answered: bool) -> list[tuple[list[int], int]]:
    """The answer is tokenized by itself, as the model writes it: no token reaches over from the prompt."""
    heads: list[list[int]] = tokenizer([text[0].content for text in texts])["input_ids"]
    if not answered:
        return [(head, len(head)) for head in heads]
    answers = tokenizer([text[-1].content for text in texts], add_special_tokens=False)["input_ids"]
    return [([*head, *ids, int(tokenizer.eos_token_id)], len(head)) for head, ids in zip(heads, answers)]


def _rendered(tokenizer: Any, talks: list[list[dict[str, str]]], *, opened: bool) -> list[list[int]]:
    texts = tokenizer.apply_chat_template(talks, tokenize=False, add_generation_prompt=opened)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _plain(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in conversation]
