"""`shieldguard bench judge`, with Llama-3's own vocabulary where the data folder is to be had.

It lies beside the repository, or in $SHIELDGUARD_DATA. Options go to the command.
"""

import os
import sys
from pathlib import Path

from shieldguard_adapters.cli import main

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
_VOCABULARY = Path(os.environ.get("SHIELDGUARD_DATA", _BESIDE), "tokenizer", "ggml-vocab-llama-bpe.gguf")

if __name__ == "__main__":
    options = sys.argv[1:] or ["--tokens", "1024", "--tokens", "4096"]
    vocabulary = ["--tokenizer", str(_VOCABULARY)] if _VOCABULARY.exists() else []
    sys.argv[1:] = ["bench", "judge", *vocabulary, *options]
    main()
