"""The run that every stage gets."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from espnet_cif_hkd.recipe.machines import Machines, machines
from espnet_cif_hkd.recipe.options import Options
from espnet_cif_hkd.recipe.paths import Paths, sampling_rate


@dataclass
class Run:
    """One call of the engine.

    Attributes:
        options: the parsed command line.
        paths: the folders and files of the run.
        arguments: the command line as given, for ``run.sh`` in experiment folders.
        stages: the stages that will run, in order.
        stock: whether ESPnet's ``asr.sh`` runs them, after this engine's checks.
    """

    options: Options
    paths: Paths
    arguments: Sequence[str]
    stages: list[int] = field(default_factory=list)
    stock: bool = False

    @property
    def rate(self) -> int:
        """Sampling rate of the dump in Hz."""
        return sampling_rate(self.options.fs)

    @property
    def machines(self) -> Machines:
        """The machines of stages 7 and 11."""
        return machines(self.options.num_nodes, self.options.hosts)

    def eval_sets(self) -> list[str]:
        """Sets to decode, relative to the folder of features."""
        valid = [f"org/{self.options.valid_set}"] if self.options.eval_valid_set else []
        return valid + self.options.test_sets.split()
