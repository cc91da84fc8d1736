"""What others report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        network: its name.
        method: its name.
        error: on the test images, in percent.
        kept: units that stay.
        fewer_macs: how many times fewer multiply-accumulates; None where not reported.
        faster: how many times faster on a CPU; None where not reported.
    """

    network: str
    method: str
    error: float
    kept: str
    fewer_macs: float | None = None
    faster: float | None = None


_FC, _LENET = "LeNet-500-300", "LeNet-5-Caffe"
# The rows of MNIST stand in the README of the authors' code, but for VIBNet's and BC-GHS's, which
# later papers quote. LeNet-5-Caffe has 2.293 million multiply-accumulates, LeNet-500-300 545,000.
# VIBNet's widths make 9,560; its 19.1 thousand operations count additions, too.
PUBLISHED = (
    Published(_FC, "original", 1.54, "784-500-300", 1.0, 1.0),
    Published(_FC, "SparseVD", 1.57, "537-217-130", 3.73, 1.19),
    Published(_FC, "SSL", 1.49, "434-174-78", 6.06, 2.21),
    Published(_FC, "SBP", 1.55, "245-160-55", 11.23, 2.33),
    Published(_FC, "VIBNet (a 300-100 net)", 1.6, "97-71-33", 545_000 / 9_560),
    Published(_LENET, "original", 0.80, "20-50-800-500", 1.0, 1.0),
    Published(_LENET, "SparseVD", 0.75, "17-32-329-75", 2.19, 1.48),
    Published(_LENET, "SSL", 1.00, "3-12-800-500", 3.90, 5.17),
    Published(_LENET, "SBP", 0.86, "3-18-284-283", 10.49, 5.41),
    Published(_LENET, "BC-GHS", 1.0, "5-10-76-16", 2_293_000 / 158_000),
)
