"""A tokenizer as transformers 4 wrote it, for released code that runs on it: 5 reads its files, but not the reverse."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from forejudge.files import write_json
from forejudge.library_calls import named_file, quiet_libraries

_CONFIG_FILE = "tokenizer_config.json"
_OF_TRANSFORMERS_5 = {"backend", "is_local", "local_files_only", "extra_special_tokens"}


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """All files of it, the vocabulary also apart, as tokenizers without the fast backend read it."""
    with named_file(folder), quiet_libraries():
        tokenizer.save_pretrained(folder)
        tokenizer.backend_tokenizer.model.save(str(folder))
    written = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
    marks = {str(number): token.__getstate__() for number, token in tokenizer.added_tokens_decoder.items()}
    kept = {name: value for name, value in written.items() if name not in _OF_TRANSFORMERS_5}
    extra = [str(token) for token in written.get("extra_special_tokens", [])]
    write_json(folder / _CONFIG_FILE, kept | {"added_tokens_decoder": marks, "additional_special_tokens": extra})
