"""Fonts for pictures with text in scripts that matplotlib's own font lacks."""

import logging

from espnet_cif_hkd.io.tables import first_few

# Common fonts for Chinese, Japanese and Korean, in order of preference.
_WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC"),
    *("Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN", "SimHei"),
    *("Microsoft YaHei", "PingFang SC", "Heiti SC", "Arial Unicode MS"),
)


def families(first: str, text: str) -> list[str]:
    """Font families that together show ``text``, as far as they are installed.

    Args:
        first: the preferred family, such as ``DejaVu Sans``.
        text: all text of the picture; a warning names characters without a font.
    """
    from matplotlib import font_manager as manager

    installed = {entry.name for entry in manager.fontManager.ttflist}
    chosen, missing = [first], {c for c in text if not c.isspace()}
    for family in (first, *(name for name in _WIDE if name in installed)):
        if not missing:
            break
        font = manager.get_font(manager.findfont(manager.FontProperties(family=family)))
        shown = {c for c in missing if font.get_char_index(ord(c))}
        if shown and family != first:
            chosen.append(family)
        missing -= shown
    if missing:
        logging.warning(
            "no installed font has %s: boxes are drawn instead; install a font such "
            "as Debian's fonts-noto-cjk",
            first_few(sorted(missing)),
        )
    return chosen
