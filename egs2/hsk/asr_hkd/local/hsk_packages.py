"""The two source packages of the corpus."""

from espnet_cif_hkd.io.packages import Package, fault, obtain, wheel

__all__ = ["SENTENCES", "VOICE", "Package", "fault", "obtain"]

VOICE = Package(
    "gcin-voice_0~20170223-3_all.deb",
    7_740_240,
    "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
    "gcin-voice",
    "Debian's mirrors have it in pool/main/g/gcin-voice/",
)
SENTENCES = wheel(
    "hsk-sentences-audio",
    "1.0.0",
    884_413,
    "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
)
