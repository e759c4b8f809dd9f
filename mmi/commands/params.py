"""``mmi params``: how many parameters each part of a network has, and which of them are trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from mmi.commands.arguments import Arguments
from mmi.commands.collector import without_collector
from mmi.errors import DONE

if TYPE_CHECKING:
    from torch import nn

    from mmi.config import NetworkConfig
    from mmi.models.freezing import BackboneState

_DESCRIPTION = """\
Count the parameters of every part of a network and say which are trained.

The network is built without memory (no values are allocated and no weights are read), so full-size configs answer in
seconds on any machine."""
_EXAMPLE = """\
mmi params --config model/mm_interleaved_13b.yaml
mmi params --config configs/demo.yaml --model.network.language.mmfs.enabled=false
mmi params --run runs/demo --json"""


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part; shared parameters are counted where they come first."""

    part: str
    total: int
    trainable: int

    @property
    def frozen(self) -> int:
        """Parameters that training does not change."""
        return self.total - self.trainable


def run(command: str, argv: Sequence[str]) -> int:
    """Print the table of parts."""
    parser = Arguments(command, _DESCRIPTION, _EXAMPLE, takes_configs=True)
    parser.add_argument("--run", metavar="DIR", help="take the network of a run folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    line = parser.read(argv)

    from mmi.commands.settings import network_settings, settings_from_command_line

    tree = settings_from_command_line(line, run=line.options.run)
    counted = count_network(*network_settings(tree))
    if line.options.json:
        print(json.dumps([asdict(count) for count in counted.parts], indent=1))
    else:
        print("\n".join([_table(counted.parts), "", *map(str, counted.backbones)]))
    return DONE


class NetworkCount(NamedTuple):
    """Parameters of the parts, and which backbones are frozen."""

    parts: list[PartCount]
    backbones: tuple[BackboneState, ...]


def count_parameters(config: NetworkConfig, compat: object = "corrected") -> list[PartCount]:
    """Return the parts of ``count_network``."""
    return count_network(config, compat).parts


@without_collector()
def count_network(config: NetworkConfig, compat: object = "corrected") -> NetworkCount:
    """Build a network without memory and count the parameters of each part, in the order of the data flow.

    Args:
        config: Every architecture number. Whether ``weights`` exist does not matter.
        compat: Changes no shape; passed on to construction.
    """
    from mmi.models.build import build_network
    from mmi.models.freezing import backbone_states
    from mmi.models.quantised import count_numbers
    from mmi.planning import without_values

    with without_values():
        network = build_network(config, compat, load_weights=False)  # pyright: ignore[reportArgumentType]
    counts: dict[str, list[int]] = {}
    numbers = count_numbers(network)
    for name, parameter in network.named_parameters():
        entry = counts.setdefault(_part_of(network, name), [0, 0])
        entry[0] += numbers[name]
        entry[1] += numbers[name] * parameter.requires_grad
    parts = [PartCount(part, total, trainable) for part, (total, trainable) in counts.items()]
    return NetworkCount(parts, backbone_states(network))


def _part_of(network: nn.Module, name: str) -> str:
    """Return ``top / child``, ``top / mmfs`` for everything inside an MMFS branch, or ``top / lora``."""
    from mmi.models.decoder_block import MMFSBranch
    from mmi.models.lora import DOWN, UP
    from mmi.models.spatial_mmfs import SpatialMMFS

    path = name.split(".")
    if path[-1] in (DOWN, UP):
        return f"{path[0]} / lora"
    for depth in range(1, len(path)):
        if isinstance(network.get_submodule(".".join(path[:depth])), (MMFSBranch, SpatialMMFS)):
            return f"{path[0]} / mmfs"
    return f"{path[0]} / {path[1]}"


def _table(counts: Sequence[PartCount]) -> str:
    total = PartCount("total", sum(c.total for c in counts), sum(c.trainable for c in counts))
    width = max(len(c.part) for c in counts)
    lines = [f"{'part':<{width}} {'parameters':>16} {'trained':>16} {'frozen':>16}"]
    for count in (*counts, total):
        if count is total:
            lines.append("-" * len(lines[0]))
        lines.append(f"{count.part:<{width}} {count.total:>16,} {count.trainable:>16,} {count.frozen:>16,}")
    share = 100 * total.trainable / total.total if total.total else 0
    lines.append(
        f"{share:.1f}% of the parameters are trained; weights in bfloat16 take {2 * total.total / 1e9:.2f} GB."
    )
    return "\n".join(lines)
