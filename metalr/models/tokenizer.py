"""The tokenizer of a model's folder: read, and held against the model's vocabulary."""

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

from metalr.errors import MetalrError
from metalr.models.encoder import EncoderConfig
from metalr.runtime import files, program

# Any one of these is a vocabulary; the last is SentencePiece's.
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
SENTENCE_PIECE = "*.model"
# All that a tokenizer is read from, its settings too.
FILES = ("*.json", *(n for v in VOCABULARIES for n in v), SENTENCE_PIECE)
# Tables are padded to multiples of 64 or 128, and some have rows to spare.
_SPARE_ROWS, _SPARE_SHARE = 512, 0.02
# Read by transformers in Python, which takes strings that no file can hold.
_WRITTEN_AGAIN = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)


def load(folder: Path, config: EncoderConfig) -> tuple[Any, str]:
    """Load the tokenizer of a folder.

    Args:
      folder: With the files of VOCABULARIES, as transformers writes them.
      config: The encoder that is to read its tokens.

    Returns:
      A fast tokenizer of transformers, and a note on what the files left open, or "".

    Raises:
      MetalrError: There is none, it can't be read or written again, or it is not that
        of the model.
    """
    _check_files(folder)
    case, note = _case(folder)
    tokenizer = _from_transformers(folder, config, case)
    tokenizer.truncation_side = "right"  # a long text loses its end, whatever it says
    rows, tokens = config.vocab_size, len(tokenizer)
    if not tokenizer.is_fast or tokens > rows:
        raise MetalrError(
            f"the tokenizer in {folder} must be a fast one (tokenizer.json) of at most "
            f"the model's {rows} tokens; it has {tokens}"
        )
    if rows - tokens > max(_SPARE_ROWS, _SPARE_SHARE * rows) or 2 * tokens < rows:
        raise MetalrError(
            f"the tokenizer in {folder} has {tokens} tokens and the model's table "
            f"{rows} rows: it is another model's, or cut off. {_way_out(folder)}"
        )
    return tokenizer, note


def _way_out(folder: Path) -> str:
    return (
        "Put the model's own beside its weights: "
        f'AutoTokenizer.from_pretrained("NAME").save_pretrained("{folder}")'
    )


def _check_files(folder: Path) -> None:
    # Without them transformers makes one that knows [UNK] alone, and says nothing.
    whole = [
        names
        for names in VOCABULARIES
        if all((folder / name).is_file() for name in names)
    ]
    if not whole and not any(folder.glob(SENTENCE_PIECE)):
        *some, last = (" and ".join(names) for names in VOCABULARIES)
        raise MetalrError(
            f"{folder} holds no tokenizer: it needs {', '.join(some)}, or {last}. "
            f"{_way_out(folder)}"
        )
    if not whole and importlib.util.find_spec("sentencepiece") is None:
        raise MetalrError(
            f"{folder} has its vocabulary as SentencePiece's {SENTENCE_PIECE} alone, "
            "which the package of that name reads: pip install sentencepiece; or save "
            "tokenizer.json beside it where it is installed"
        )
    for names in whole:
        for name in names:
            if not (folder / name).stat().st_size:
                raise MetalrError(f"{folder / name} is empty. {_way_out(folder)}")
    for name in _WRITTEN_AGAIN:
        if (folder / name).is_file():
            found = files.read_json(folder / name)
            try:
                json.dumps(found, ensure_ascii=False).encode()
            except UnicodeEncodeError as fault:
                half = fault.object[fault.start]
                raise MetalrError(
                    f"{folder / name} holds half a surrogate pair "
                    f"(\\u{ord(half):x}), which can't be written again; take it out"
                ) from fault


def _case(folder: Path) -> tuple[bool | None, str]:
    """Return `do_lower_case` where nothing says it, else None; and a note.

    transformers lower-cases whatever a vocab.txt has.
    """
    if not (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file():
        return None, ""
    said = None
    if (folder / "tokenizer_config.json").is_file():
        said = files.read_json(folder / "tokenizer_config.json").get("do_lower_case")
    try:
        words = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as fault:
        raise MetalrError(f"{folder / 'vocab.txt'} can't be read: {fault}") from fault
    plain = [word for word in words if not word.startswith(("[", "<"))]
    capitals = sum(word != word.lower() for word in plain)
    if capitals < 0.01 * len(plain) or capitals == 0:  # or it is that of an uncased one
        return None, ""
    if said is None:
        return False, (
            "vocab.txt has words with capitals and no tokenizer_config.json says "
            "do_lower_case: texts keep their case"
        )
    if said:
        return None, (
            "texts are lower-cased, as tokenizer_config.json says, although vocab.txt "
            "has words with capitals"
        )
    return None, ""


def _from_transformers(folder: Path, config: EncoderConfig, case: bool | None) -> Any:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # "no PyTorch"
    transformers = program.import_transformers()
    said = {} if case is None else {"do_lower_case": case}
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return transformers.AutoTokenizer.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,  # unsaid, a folder with code of its own asks
                # One of a general class would not know that BERT reads segments.
                model_input_names=config.differences.inputs,
                **said,
            )
    except Exception as fault:  # whatever the parsers of many file formats raise
        reason = " ".join(str(fault).split())[:200]
        raise MetalrError(
            f"the tokenizer in {folder} can't be read: {reason}"
        ) from fault
    finally:
        transformers.logging.set_verbosity(verbosity)
