"""Spherical harmonics by plain matrix products: fast for small truncations and many fields.

Coefficients are real arrays (order m, part, degree n, field) with part 0 the real and part 1 the
imaginary one; fields on the grid are (longitude, latitude, field), latitudes from south to north.
In these two layouts a transform is two matrix products with no transposing in between.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Coefficients = Float[np.ndarray, "order 2 degree field"]
Gridded = Float[np.ndarray, "longitude latitude field"]


def legendre(
    truncation: int, sine: Float[np.ndarray, " latitude"]
) -> Float[np.ndarray, "order degree latitude"]:
    """Associated Legendre functions P(m, n) at sines of latitude, ∫ P² over [-1, 1] = 1.

    Degrees go to truncation + 1 (a derivative needs one more), orders to truncation. Three-term
    recurrence of Holmes & Featherstone (2002), with the Condon-Shortley sign.
    """
    p = np.zeros((truncation + 1, truncation + 2, len(sine)))
    diagonal = np.full(len(sine), np.sqrt(0.5))
    for m in range(truncation + 1):
        p[m, m] = diagonal
        p[m, m + 1] = np.sqrt(2 * m + 3) * sine * diagonal
        for n in range(m + 2, truncation + 2):
            back = np.sqrt(((n - 1) ** 2 - m * m) / (4 * (n - 1) ** 2 - 1))
            p[m, n] = np.sqrt((4 * n * n - 1) / (n * n - m * m)) * (
                sine * p[m, n - 1] - back * p[m, n - 2]
            )
        diagonal = -np.sqrt((2 * m + 3) / (2 * m + 2)) * np.sqrt(1 - sine**2) * diagonal
    return p


def legendre_slope(p: Float[np.ndarray, "order degree latitude"]) -> np.ndarray:
    """(1 − μ²) dP/dμ at the truncation's degrees, from P with one degree more.

    (1 − μ²) dP(m, n)/dμ = (n + 1) ε(n) P(m, n−1) − n ε(n+1) P(m, n+1) with
    ε(n)² = (n² − m²)/(4n² − 1).
    """
    m, n = np.arange(p.shape[0])[:, None], np.arange(p.shape[1])[None]
    epsilon = np.sqrt(np.maximum(n * n - m * m, 0) / (4.0 * n * n - 1))[..., None]
    n = n[..., None]
    below = np.concatenate([np.zeros_like(p[:, :1]), p[:, :-2]], axis=1)
    return (n[:, :-1] + 1) * epsilon[:, :-1] * below - n[:, :-1] * epsilon[:, 1:] * p[:, 1:]


@dataclass(frozen=True, kw_only=True)
class Sphere:
    """The matrices of one Gaussian grid and triangular truncation.

    `laplacian` is −n(n+1) and `inverse_laplacian` its inverse (0 for n = 0), both on the unit
    sphere and shaped to multiply coefficients.
    """

    truncation: int
    sine: np.ndarray
    weights: np.ndarray
    laplacian: np.ndarray
    inverse_laplacian: np.ndarray
    to_latitude: np.ndarray
    slope_to_latitude: np.ndarray
    to_longitude: np.ndarray
    from_longitude: np.ndarray
    from_latitude: np.ndarray
    slope_from_latitude: np.ndarray

    @classmethod
    def make(
        cls, *, height: int, width: int, truncation: int, dtype: type = np.float64
    ) -> "Sphere":
        """A grid of `height` Gaussian latitudes and `width` longitudes from 0° east."""
        sine, weights = np.polynomial.legendre.leggauss(height)
        p = legendre(truncation, sine)
        slope, p = legendre_slope(p), p[:, :-1]
        m, n = np.arange(truncation + 1), np.arange(truncation + 1)
        slope[m[:, None] > n] = 0
        angle = 2 * np.pi * np.outer(np.arange(width), m) / width
        # twice for m > 0: a real field's negative orders mirror the positive ones
        wave = np.where(m == 0, 1, 2)[None, :, None] * np.stack(
            [np.cos(angle), -np.sin(angle)], axis=-1
        )
        back = np.stack([np.cos(angle), -np.sin(angle)], axis=-1) / width
        laplacian = -(n * (n + 1.0))[:, None]
        made = {
            "sine": sine,
            "weights": weights,
            "laplacian": laplacian,
            "inverse_laplacian": np.divide(
                1, laplacian, out=np.zeros_like(laplacian), where=laplacian != 0
            ),
            "to_latitude": p.transpose(0, 2, 1)[:, None],
            "slope_to_latitude": slope.transpose(0, 2, 1)[:, None],
            "to_longitude": wave.reshape(width, -1),
            "from_longitude": back.reshape(width, -1).T,
            "from_latitude": (p * weights)[:, None],
            "slope_from_latitude": (slope * weights)[:, None],
        }
        kept = {k: np.ascontiguousarray(v, dtype=dtype) for k, v in made.items()}
        return cls(truncation=truncation, **kept)

    def _across(self, lines: np.ndarray) -> Gridded:
        """Fourier coefficients (order, part, latitude, field) to the grid."""
        flat = self.to_longitude @ lines.reshape(self.to_longitude.shape[1], -1)
        return flat.reshape(-1, *lines.shape[2:])

    def _lines(self, grid: Gridded) -> np.ndarray:
        """The grid to Fourier coefficients (order, part, latitude, field)."""
        flat = self.from_longitude @ grid.reshape(grid.shape[0], -1)
        return flat.reshape(self.truncation + 1, 2, *grid.shape[1:])

    def to_grid(self, coefficients: Coefficients) -> Gridded:
        """Values on the grid."""
        return self._across(self.to_latitude @ coefficients)

    def slope(self, coefficients: Coefficients) -> Gridded:
        """(1 − μ²) ∂/∂μ, that is cos φ ∂/∂φ, on the grid (μ is the sine of latitude φ)."""
        return self._across(self.slope_to_latitude @ coefficients)

    def from_grid(self, grid: Gridded) -> Coefficients:
        """Coefficients of a field on the grid, what lies beyond the truncation left out."""
        return self.from_latitude @ self._lines(grid)

    def eastward(self, coefficients: Coefficients) -> Coefficients:
        """∂/∂λ: i·m times each coefficient."""
        m = np.arange(self.truncation + 1, dtype=coefficients.dtype)[:, None, None]
        turned = np.empty_like(coefficients)
        turned[:, 0] = -m * coefficients[:, 1]
        turned[:, 1] = m * coefficients[:, 0]
        return turned

    def divergence(self, east: Gridded, north: Gridded) -> Coefficients:
        """Of a vector field given times cos φ, on the unit sphere.

        ∇·F = 1/(1 − μ²) ∂(F_λ cos φ)/∂λ + ∂(F_φ cos φ)/∂μ; the second term by parts, so that no
        derivative is taken on the grid (Bourke 1972).
        """
        cosine2 = (1 - self.sine**2)[:, None]
        eastward = self.eastward(self.from_latitude @ self._lines(east / cosine2))
        return eastward - self.slope_from_latitude @ self._lines(north / cosine2)
