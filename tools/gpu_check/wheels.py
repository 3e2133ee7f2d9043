"""Packages in a bundle: imports of ESPnet and of this package that machines often lack.

The GPU machine must have torch and torchaudio, numpy, scipy, numba, scikit-learn,
transformers with tokenizers and safetensors, sentencepiece, matplotlib, tensorboard,
h5py, einops, opt-einsum, regex, PyYAML, pytest and pytest-timeout, with what these
need. These are too large for a bundle or belong to the machine's torch; ``bundle
--add`` adds a missing one. Packages that the machine has are not replaced.
"""

# Imported by training or decoding with ESPnet of either release, or by this package.
COMMON = [
    "antlr4-python3-runtime==4.9.3",
    "audioread",
    "cffi",
    "configargparse",
    "decorator",
    "editdistance",
    "espnet_model_zoo",
    "humanfriendly",
    "hydra-core",
    "lazy-loader",
    "librosa",
    "nltk",
    "omegaconf>=2.3,<2.4",
    "pooch",
    "pycparser",
    "pytorch-ranger",
    "soundfile",
    "soxr",
    "torch-complex",
    "torch-optimizer",
    "typeguard",
]
# Source distributions of pure Python.
SOURCE_ONLY = {"antlr4-python3-runtime", "ci-sdr", "fast-bss-eval"}
RELEASES = {
    "202611": [*COMMON, "defusedxml", "omniio"],
    "202511": [
        *COMMON,
        "asteroid-filterbanks==0.4.0",
        "ci-sdr",
        "espnet-g2p-en",
        "espnet-tts-frontend",
        "fast-bss-eval==0.1.3",
        "importlib-metadata<5.0",
        "inflect",
        "jaconv",
        "jamo==0.4.1",
        "kaldiio",
        "more-itertools",
        "pypinyin<=0.44.0",
        "Unidecode",
        "zipp",
    ],
}


def release_of(python: str) -> str:
    """Return ESPnet's release for a Python version, as in ``tools/install.sh``."""
    return "202611" if python == "3.12" else "202511"
