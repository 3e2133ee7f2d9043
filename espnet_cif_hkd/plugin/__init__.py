"""Registration in ESPnet, launcher, spawned processes, releases of ESPnet."""

from espnet_cif_hkd.plugin.registration import register, register_on_import

__all__ = ["register", "register_on_import"]
