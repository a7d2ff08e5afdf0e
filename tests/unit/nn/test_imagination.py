"""The wiring of the cascades, against blocks that can be computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cmarr_lightning.nn.imagination import Cascade, InvariantWiring


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.fixture
def cascade() -> Cascade:
    """Three blocks whose codes are 2u, 3u, 5u and whose decoders give c / 10, 2c / 10, 3c / 10; T is the identity."""
    made = Cascade(1, widths=(1,), num_blocks=3)
    made.encoders = nn.ModuleList(Scale(f) for f in (2.0, 3.0, 5.0))
    made.decoders = nn.ModuleList(Scale(f) for f in (0.1, 0.2, 0.3))
    made.transition = nn.Sequential()
    return made


def test_the_blocks_of_mmin_see_what_those_before_them_added(cascade: Cascade):
    imagined, codes = cascade(torch.tensor([[1.0]]))
    # u1 = 1, r1 = .2; u2 = 1.2, r2 = .72; u3 = 1.92, r3 = 2.88; out u3 + r3
    torch.testing.assert_close(codes, torch.tensor([[2.0, 3.6, 9.6]]))
    torch.testing.assert_close(imagined, torch.tensor([[4.8]]))


@pytest.mark.parametrize(
    ("wiring", "codes", "imagined"),
    [
        # u = x + k s = 1.5, 2, 2.5; r3 = .3 * 12.5; out u3 + r3
        ("paper2022", [3.0, 6.0, 12.5], 6.25),
        # u1 = x + s = 1.5, r1 = .3; u2 = .8, r2 = .48; u3 = .98, r3 = 1.47; out r3
        ("head2024", [3.0, 2.4, 4.9], 1.47),
    ],
)
def test_both_wirings_of_if_mmin(cascade: Cascade, wiring: InvariantWiring, codes: list[float], imagined: float):
    got, kept = cascade.with_invariant(torch.tensor([[1.0]]), torch.tensor([[0.5]]), wiring)
    torch.testing.assert_close(kept, torch.tensor([codes]))
    torch.testing.assert_close(got, torch.tensor([[imagined]]))


def test_the_published_widths_have_the_published_number_of_parameters():
    down = 384 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64
    up = 64 * 128 + 128 + 128 * 256 + 256 + 256 * 384 + 384
    transition = 2 * (384 * 384 + 384)
    cascade = Cascade(384)
    assert sum(p.numel() for p in cascade.parameters()) == 5 * (down + up) + transition == 1_694_400
    assert cascade.code_dim == 320


def test_activations_lie_between_the_layers_only():
    kinds = [type(layer) for layer in Cascade(8, (4, 2)).encoders[0]], [type(x) for x in Cascade(8, (4, 2)).decoders[0]]
    assert kinds == ([nn.Linear, nn.LeakyReLU, nn.Linear], [nn.Linear, nn.ReLU, nn.Linear])
