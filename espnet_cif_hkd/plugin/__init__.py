"""Registration of our classes in ESPnet, launcher, spawned processes, ESPnet releases."""

from espnet_cif_hkd.plugin.registration import register, register_on_import

__all__ = ["register", "register_on_import"]
