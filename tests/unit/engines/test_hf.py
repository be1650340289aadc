"""The transformers engine against transformers' own generation and forward pass, on a small trained model."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from prover.engines import Completion, GenerationRequest, Sampling
from prover.engines.hf import HfEngine
from prover.engines.sampling import draw, uniforms
from prover.errors import ModelError
from prover.pretrained import load_model, load_tokenizer
from prover.records import ChatMessage

from .conftest import WORDS

DRAWN = Sampling(temperature=1.0, top_p=1.0, max_tokens=24)
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


def requests(count: int, n: int, first_seed: int = 0) -> list[GenerationRequest]:
    """Prompts of different lengths, ``n`` completions each."""
    return [
        GenerationRequest(
            id=f"r{i}",
            messages=(ChatMessage(role="user", content=" ".join(WORDS[i % 12 : i % 12 + 1 + i % 4])),),
            seeds=tuple(range(first_seed + 100 * i, first_seed + 100 * i + n)),
        )
        for i in range(count)
    ]


def by_place(completions: Iterator[Completion]) -> dict[tuple[str, int], Completion]:
    found = list(completions)
    places = {(c.request_id, c.index): c for c in found}
    assert len(places) == len(found), "a completion came twice"
    return places


@pytest.fixture(scope="module")
def engine(trained: Path) -> Iterator[HfEngine]:
    with HfEngine(trained, batch_size=32, dtype="float32") as engine:
        yield engine


def test_greedy_equals_transformers_generate(engine: HfEngine, trained: Path) -> None:
    model, tokenizer = load_model(trained, torch.float32, "cpu"), load_tokenizer(trained)
    asked = requests(14, 2)
    ours = by_place(engine.generate(asked, GREEDY))
    assert set(ours) == {(r.id, i) for r in asked for i in range(2)}
    for request in asked:
        talk = [{"role": m.role, "content": m.content} for m in request.messages]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        new = model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :].tolist()
        ended = new[-1] == tokenizer.eos_token_id
        for i in range(2):
            made = ours[request.id, i]
            assert made.text == tokenizer.decode(new, skip_special_tokens=True)
            assert made.finish_reason == ("stop" if ended else "length")
            assert (made.prompt_tokens, made.completion_tokens) == (ids.shape[1], len(new))


def test_the_same_call_gives_the_same_completions(engine: HfEngine) -> None:
    asked = requests(10, 8)
    one, two = list(engine.generate(asked, DRAWN)), list(engine.generate(asked, DRAWN))
    assert one == two
    assert len({c.text for c in one}) > 20
    assert len({c.completion_tokens for c in one}) > 3  # rows ended at different steps


def test_a_completion_does_not_depend_on_its_company(engine: HfEngine) -> None:
    asked = requests(9, 6)
    together = by_place(engine.generate(asked, DRAWN))
    for request in asked:
        for i, seed in enumerate(request.seeds):
            alone = GenerationRequest(id="x", messages=request.messages, seeds=(seed,))
            (made,) = engine.generate([alone], DRAWN)
            other = together[request.id, i]
            assert (made.text, made.finish_reason) == (other.text, other.finish_reason)
            assert made.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_seeds_decide(engine: HfEngine) -> None:
    (request,) = requests(1, 1)
    again = GenerationRequest(id="again", messages=request.messages, seeds=(7, 7, 8, 9, 10, 11, 12, 13))
    made = by_place(engine.generate([again], DRAWN))
    assert made["again", 0].text == made["again", 1].text
    assert len({c.text for c in made.values()}) > 1


def test_text_and_logprob_equal_sampling_without_cache_and_batch(engine: HfEngine, trained: Path) -> None:
    """One completion at a time, the whole text run through the model again for every token. Logprobs are the model's
    at temperature 1, not the sampler's."""
    model, tokenizer = load_model(trained, torch.float32, "cpu"), load_tokenizer(trained)
    hot = Sampling(temperature=1.3, top_p=0.95, max_tokens=24)
    asked = requests(6, 3)
    made = by_place(engine.generate(asked, hot))
    for request in asked:
        talk = [{"role": m.role, "content": m.content} for m in request.messages]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        head = tokenizer(text, add_special_tokens=False)["input_ids"]
        for i, seed in enumerate(request.seeds):
            tokens, total = list(head), 0.0
            for number in uniforms(seed, head, 24):
                with torch.inference_mode():
                    logits = model(torch.tensor([tokens])).logits[:, -1]
                token, _ = draw(logits, 1.3, 0.95, torch.tensor([number]))
                total += float(logits.log_softmax(-1)[0, token])
                tokens.append(int(token))
                if tokens[-1] == tokenizer.eos_token_id:
                    break
            completion = made[request.id, i]
            assert completion.text == tokenizer.decode(tokens[len(head) :], skip_special_tokens=True)
            assert completion.completion_tokens == len(tokens) - len(head)
            assert completion.logprob == pytest.approx(total, abs=1e-3)


def test_samples_follow_the_models_distribution(engine: HfEngine, trained: Path) -> None:
    """First tokens of 4,000 samples against the probabilities of a forward pass, at temperature 0.7 and top-p 0.9."""
    model, tokenizer = load_model(trained, torch.float32, "cpu"), load_tokenizer(trained)
    message = ChatMessage(role="user", content="omega")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "omega"}, {"role": "assistant", "content": ""}], tokenize=False
    ).removesuffix(tokenizer.eos_token)
    head = tokenizer(ids, add_special_tokens=False)["input_ids"]
    first = tokenizer("by", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([head + first])).logits[0, -2:]
    for place, before in ((0, []), (1, first)):
        p = (logits[place] / 0.7).softmax(-1).sort(descending=True)
        keep = p.values.cumsum(-1) - p.values < 0.9
        allowed = dict(zip(p.indices[keep].tolist(), (p.values[keep] / p.values[keep].sum()).tolist()))
        request = GenerationRequest(id="r", messages=(message,), seeds=tuple(range(4_000)))
        sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=place + 1)
        counts: Counter[int] = Counter()
        for made in engine.generate([request], sampling):
            tokens = tokenizer(made.text, add_special_tokens=False)["input_ids"]
            if made.finish_reason == "stop":
                tokens.append(tokenizer.eos_token_id)
            if len(tokens) == place + 1 and tokens[:place] == before:
                counts[tokens[place]] += 1
        total = counts.total()
        assert total > 1_000
        assert set(counts) <= set(allowed)
        for token, probability in allowed.items():
            spread = 5 * (probability * (1 - probability) / total) ** 0.5
            assert abs(counts[token] / total - probability) < spread + 1e-3


def test_stop_strings_end_the_text_before_them(engine: HfEngine) -> None:
    asked = requests(8, 4)
    whole = by_place(engine.generate(asked, DRAWN))
    stopped = by_place(
        engine.generate(asked, Sampling(temperature=1.0, top_p=1.0, max_tokens=24, stop=("i", "es", "é")))
    )
    hits = 0
    for place, made in stopped.items():
        full = whole[place].text
        ends = [at for stop in ("i", "es", "é") if (at := full.find(stop)) >= 0]
        assert made.text == (full[: min(ends)] if ends else full)
        if ends:
            hits += 1
            assert made.finish_reason == "stop"
            assert made.completion_tokens <= whole[place].completion_tokens
    assert 0 < hits < len(stopped)


def test_a_stop_string_may_end_in_the_middle_of_a_token(engine: HfEngine) -> None:
    (whole,) = engine.generate(
        [GenerationRequest(id="r", messages=(ChatMessage(role="user", content="omega"),), seeds=(1,))], GREEDY
    )
    assert whole.text.startswith("by")
    asked = GenerationRequest(id="r", messages=(ChatMessage(role="user", content="omega"),), seeds=(1,))
    (made,) = engine.generate([asked], Sampling(temperature=0.0, top_p=1.0, max_tokens=24, stop=("y",)))
    assert (made.text, made.finish_reason) == ("b", "stop")


def test_the_token_limit_and_the_context_cut_completions(engine: HfEngine) -> None:
    (made,) = engine.generate(requests(1, 1), Sampling(temperature=1.0, top_p=1.0, max_tokens=1))
    assert (made.completion_tokens, made.finish_reason) == (1, "length")
    talk = (ChatMessage(role="user", content="\n" * 90),)  # 93 tokens of the 96 that the model takes
    assert not engine.fits(talk)
    for completion in engine.generate([GenerationRequest(id="long", messages=talk, seeds=(1, 2, 3))], DRAWN):
        assert completion.prompt_tokens == 93
        assert completion.completion_tokens <= 3


def test_a_prompt_without_room_is_refused_by_name(engine: HfEngine) -> None:
    talk = (ChatMessage(role="user", content="\n" * 200),)
    with pytest.raises(ModelError, match=r"request big: the prompt has 203 tokens, .* takes 96 with the answer"):
        list(engine.generate([*requests(2, 1), GenerationRequest(id="big", messages=talk, seeds=(1,))], DRAWN))


def test_short_prompts_fit(engine: HfEngine) -> None:
    assert engine.fits((ChatMessage(role="user", content="omega"),))


def test_more_seeds_than_a_batch_holds(engine: HfEngine) -> None:
    (request,) = requests(1, 75)
    made = by_place(engine.generate([request], DRAWN))
    assert sorted(made) == [("r0", i) for i in range(75)]
    (alone,) = engine.generate(
        [GenerationRequest(id="x", messages=request.messages, seeds=(request.seeds[70],))], DRAWN
    )
    assert made["r0", 70].text == alone.text


def test_requests_may_ask_for_different_numbers(engine: HfEngine) -> None:
    asked = [
        GenerationRequest(id=r.id, messages=r.messages, seeds=r.seeds[: 1 + i % 3])
        for i, r in enumerate(requests(9, 3))
    ]
    made = by_place(engine.generate(asked, DRAWN))
    assert set(made) == {(r.id, i) for r in asked for i in range(len(r.seeds))}
    assert list(engine.generate([], DRAWN)) == []


def test_completions_come_as_they_finish(engine: HfEngine) -> None:
    lengths = [c.completion_tokens for c in engine.generate(requests(4, 8), DRAWN)]
    assert lengths == sorted(lengths)  # one batch: the shortest first
    assert len(set(lengths)) > 3


def test_a_consumer_may_stop_early_and_use_torch_meanwhile(engine: HfEngine) -> None:
    stream = engine.generate(requests(4, 8), DRAWN)
    next(stream)
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()  # the engine's inference mode does not leak into its consumer
    assert weight.grad is not None
    del stream
    assert len(list(engine.generate(requests(1, 2), DRAWN))) == 2


def test_it_runs_in_a_thread_of_its_own(engine: HfEngine) -> None:
    expected = list(engine.generate(requests(4, 4), DRAWN))
    found: list[Completion] = []
    thread = threading.Thread(target=lambda: found.extend(engine.generate(requests(4, 4), DRAWN)))
    thread.start()
    thread.join()
    assert found == expected


def test_half_precision_agrees_closely(trained: Path, engine: HfEngine) -> None:
    with HfEngine(trained, batch_size=32, dtype="bfloat16") as half:
        same = by_place(half.generate(requests(10, 4), DRAWN))
    full = by_place(engine.generate(requests(10, 4), DRAWN))
    agreed = [place for place in full if same[place].text == full[place].text]
    assert len(agreed) >= 0.5 * len(full)  # one token drawn otherwise changes all that follow
    for place in agreed:
        assert same[place].logprob == pytest.approx(full[place].logprob, rel=0.02, abs=0.1)


def save_with_tokenizer(model: torch.nn.Module, trained: Path, path: Path) -> Path:
    model.save_pretrained(path)  # type: ignore[operator]
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).write_bytes((trained / name).read_bytes())
    return path


def test_grouped_heads_and_other_architectures_decode_alike(trained: Path, tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    vocabulary = len(load_tokenizer(trained))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=96, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    path = save_with_tokenizer(Qwen3ForCausalLM(config), trained, tmp_path / "qwen3")
    model = load_model(path, torch.float32, "cpu")
    with HfEngine(path, batch_size=16, dtype="float32") as engine:
        made = by_place(engine.generate(requests(8, 1), GREEDY))
    tokenizer = load_tokenizer(path)
    for request in requests(8, 1):
        talk = [{"role": m.role, "content": m.content} for m in request.messages]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        new = model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :]
        assert made[request.id, 0].text == tokenizer.decode(new, skip_special_tokens=True)


def test_an_architecture_that_our_attention_does_not_cover_is_refused_at_load(trained: Path, tmp_path: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(load_tokenizer(trained)), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=96,
        attn_logit_softcapping=50.0, eos_token_id=2, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    path = save_with_tokenizer(Gemma2ForCausalLM(config), trained, tmp_path / "gemma2")
    with pytest.raises(ModelError, match="does not decode with the transformers engine"):
        HfEngine(path, dtype="float32").__enter__()


def test_a_tokenizer_of_another_model_is_refused(trained: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1
    )
    path = save_with_tokenizer(LlamaForCausalLM(config), trained, tmp_path / "small")
    with pytest.raises(ModelError, match="they do not belong together"):
        HfEngine(path).__enter__()


def test_an_unknown_or_absent_device_is_one_line(trained: Path) -> None:
    with pytest.raises(ModelError, match="unknown device 'tpu'"):
        HfEngine(trained, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="torch sees no GPU here"):
            HfEngine(trained, device="cuda")
