"""A model's tokenizer is there, is the model's, and keeps the case that it should."""

import dataclasses
import importlib.util
import json

import pytest

from metalr.data import encode
from metalr.errors import MetalrError
from metalr.models import heads, huggingface, tokenizer
from metalr.runtime.origin import Origin
from tests.data import small_tokenizers
from tests.models.small_models import CONFIGS, WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CASED = [*SPECIAL, "Paris", "paris", "the", "The", "##s", ".", "city"]
UNCASED = [word for word in CASED if word == word.lower() or word in SPECIAL]


def config_for(words: list[str], family: str = "bert"):
    return dataclasses.replace(CONFIGS[family], vocab_size=len(words))


def write_vocabulary(folder, words: list[str], **said: object) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    if said:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))


def test_a_long_text_loses_its_end_whatever_the_tokenizer_says(tmp_path):
    write_vocabulary(tmp_path, UNCASED, truncation_side="left")
    found, _ = tokenizer.load(tmp_path, config_for(UNCASED))
    tokens = found("the city paris", truncation=True, max_length=3)["input_ids"]
    assert found.convert_ids_to_tokens(tokens) == ["[CLS]", "the", "[SEP]"]


@pytest.mark.parametrize("also", [None, "tokenizer_config.json", "vocab.json"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_without_its_tokenizer_is_refused_with_the_way_out(
    tmp_path, family, also
):
    config = CONFIGS[family]
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    model = huggingface.Pretrained(config, graphdef, params, None, {})
    huggingface.export(tmp_path, model, "classification", ("no", "yes"))
    if also:
        (tmp_path / also).write_text("{}")
    with pytest.raises(MetalrError) as told:
        huggingface.load(str(tmp_path), "classification", ("no", "yes"), seed=0)
    assert str(told.value) == (
        f"{tmp_path} holds no tokenizer: it needs tokenizer.json, vocab.txt, or "
        "vocab.json and merges.txt. Put the model's own beside its weights: "
        f'AutoTokenizer.from_pretrained("NAME").save_pretrained("{tmp_path}")'
    )


@pytest.mark.parametrize(
    ("rows", "refused"),
    [(12, False), (24, False), (25, True), (30522, True)],
)
def test_a_vocabulary_far_from_the_table_is_refused(tmp_path, rows, refused):
    write_vocabulary(tmp_path, CASED)
    config = dataclasses.replace(CONFIGS["bert"], vocab_size=rows)
    if not refused:
        assert len(tokenizer.load(tmp_path, config)[0]) == 12
        return
    with pytest.raises(MetalrError, match=f"12 tokens and .* table {rows} rows"):
        tokenizer.load(tmp_path, config)


@pytest.mark.parametrize(
    ("tokens", "rows"),
    [
        (30522, 30522),  # BERT
        (30522, 30528),  # padded to a multiple of 64
        (50280, 50368),  # ModernBERT
        (128001, 128100),  # DeBERTa v3
        (250002, 251000),
    ],
)
def test_tables_with_rows_to_spare_are_accepted(monkeypatch, tmp_path, tokens, rows):
    class Known:
        is_fast = True

        def __len__(self):
            return tokens

    write_vocabulary(tmp_path, UNCASED)
    monkeypatch.setattr(tokenizer, "_from_transformers", lambda *args: Known())
    config = dataclasses.replace(CONFIGS["bert"], vocab_size=rows)
    assert len(tokenizer.load(tmp_path, config)[0]) == tokens


def test_a_cased_model_does_not_take_the_uncased_ones_tokenizer(monkeypatch, tmp_path):
    class Cased:
        is_fast = True

        def __len__(self):
            return 28996

    write_vocabulary(tmp_path, CASED)
    monkeypatch.setattr(tokenizer, "_from_transformers", lambda *args: Cased())
    config = dataclasses.replace(CONFIGS["bert"], vocab_size=30522)
    with pytest.raises(MetalrError, match="another model's"):
        tokenizer.load(tmp_path, config)


CASES = {
    "cased, nothing said": (CASED, {}, "Paris", "keep their case"),
    "cased, another setting": (CASED, {"mask_token": "[MASK]"}, "Paris", "keep their"),
    "cased, said": (CASED, {"do_lower_case": False}, "Paris", ""),
    "cased, lower-cased": (CASED, {"do_lower_case": True}, "paris", "are lower-cased"),
    "uncased, nothing said": (UNCASED, {}, "paris", ""),
    "uncased, said": (UNCASED, {"do_lower_case": True}, "paris", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_case_of_texts_is_the_vocabularys_or_is_said(tmp_path, case):
    words, said, wanted, note = CASES[case]
    write_vocabulary(tmp_path, words, **said)
    found, told = tokenizer.load(tmp_path, config_for(words))
    assert found.tokenize("Paris") == [wanted]
    assert (note in told) and bool(note) == bool(told)


def test_what_was_taken_is_a_note_of_the_model(tmp_path):
    config = config_for(CASED)
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    model = huggingface.Pretrained(config, graphdef, params, None, {})
    huggingface.export(tmp_path, model, "classification", ("no", "yes"))
    (tmp_path / "vocab.txt").write_text("\n".join(CASED) + "\n")
    loaded = huggingface.load(str(tmp_path), "qa", (), seed=0)
    assert "keep their case" in loaded.origin.note
    assert "qa_outputs" in loaded.origin.note


def test_an_empty_vocabulary_is_refused(tmp_path):
    write_vocabulary(tmp_path, [])
    (tmp_path / "vocab.txt").write_text("")
    with pytest.raises(MetalrError, match=r"vocab\.txt is empty"):
        tokenizer.load(tmp_path, CONFIGS["bert"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", '{"extra": {"deep": ["\\ud800x"]}}'),
        ("tokenizer_config.json", '{"mask_token": "\\udfff"}'),
        ("special_tokens_map.json", '{"\\ud800": "[MASK]"}'),
    ],
)
def test_what_cannot_be_written_after_training_is_refused_before(
    tmp_path, name, content
):
    write_vocabulary(tmp_path, CASED)
    (tmp_path / name).write_text(content)
    with pytest.raises(MetalrError, match=f"{name} holds half a surrogate pair"):
        tokenizer.load(tmp_path, config_for(CASED))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_tokenizer_of_a_general_class_tells_bert_its_segments(family, tmp_path):
    made = small_tokenizers.word_piece()
    made.model_input_names = ["input_ids", "attention_mask"]
    made.save_pretrained(tmp_path)
    config = dataclasses.replace(CONFIGS[family], vocab_size=200)
    loaded, _ = tokenizer.load(tmp_path, config)
    task = small_tokenizers.task("classification", "pair", ("no", "yes"))
    rows = [{"text": "who said why", "pair": "the film", "label": 0}]
    (types,) = encode.encode(rows, task, loaded, 64).token_type_ids
    assert sorted({*types.tolist()}) == ([0, 1] if family == "bert" else [0])


def write_sentence_piece(folder, name):
    """Write the encoder of a family with SentencePiece's own vocabulary alone."""
    learned = pytest.importorskip("sentencepiece")
    file = {"deberta-v2": "spm.model"}.get(name, "sentencepiece.bpe.model")
    corpus = folder / "corpus"
    lines = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    corpus.write_text("\n".join(lines * 20))
    special = {}
    if name == "deberta-v2":  # has its special tokens in the file, others beside it
        special = dict(pad_id=0, bos_id=1, eos_id=2, unk_id=3)
        special |= dict(pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]")
        special |= dict(unk_piece="[UNK]", user_defined_symbols=["[MASK]"])
    learned.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "made"),
        vocab_size=60,
        minloglevel=2,
        **special,
    )
    (folder / "made.model").rename(folder / file)
    for left in (corpus, folder / "made.vocab"):
        left.unlink()
    like = "roberta" if name == "camembert" or name == "xlm-roberta" else name
    config = dataclasses.replace(CONFIGS[like], family=name, vocab_size=70)
    graphdef, params = heads.build(config, "classification", 2, seed=0)
    model = huggingface.Pretrained(config, graphdef, params, None, Origin("folder", ""))
    huggingface.export(folder, model, "classification", ("no", "yes"))
    return learned.SentencePieceProcessor(model_file=str(folder / file))


@pytest.mark.parametrize("family", ["xlm-roberta", "camembert", "deberta-v2"])
def test_sentence_piece_vocabulary_is_read_as_its_own_library_reads_it(
    family, tmp_path
):
    theirs = write_sentence_piece(tmp_path, family)
    model = huggingface.load(str(tmp_path), "classification", ("no", "yes"), seed=0)
    texts = ["the film was good", "Who? actor and plot", "unseen Zürich"]
    for text in texts:
        ids = model.tokenizer(text)["input_ids"]
        pieces = model.tokenizer.convert_ids_to_tokens(ids)[1:-1]
        wanted = theirs.encode(text, out_type=str)
        unknown = model.tokenizer.unk_token
        known = {theirs.id_to_piece(i) for i in range(theirs.get_piece_size())}
        assert pieces == [p if p in known else unknown for p in wanted]
        assert max(ids) < model.config.vocab_size


def test_sentence_piece_vocabulary_without_its_library_gets_the_way_out(
    tmp_path, monkeypatch
):
    write_sentence_piece(tmp_path, "camembert")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n: None if n == "sentencepiece" else real(n)
    )
    with pytest.raises(MetalrError, match="pip install sentencepiece; or save"):
        huggingface.load(str(tmp_path), "classification", ("no", "yes"), seed=0)
