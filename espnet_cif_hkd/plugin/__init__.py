"""How ESPnet finds our classes: registration, launcher, spawned processes, releases."""

from espnet_cif_hkd.plugin.registration import register, register_on_import

__all__ = ["register", "register_on_import"]
