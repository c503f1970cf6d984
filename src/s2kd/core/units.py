"""Comparison and conversion of unit strings as CF writes them."""


def same_units(first: str, second: str) -> bool:
    """Whether `m**2 s**-2` and `m2/s2` or `degK` and `K` are one unit.

    An empty string fits every unit. Strings that no unit library knows ("cabs") are compared as
    text.
    """
    return conversion(first, second) == (1.0, 0.0)


def conversion(source: str, target: str) -> tuple[float, float] | None:
    """(factor, offset) from one unit to another; None where there is none.

    An empty string fits every unit. Strings that no unit library knows are compared as text.
    """
    if not source or not target or source.strip() == target.strip():
        return 1.0, 0.0
    from cf_xarray.units import units  # seconds to import, and seldom needed

    try:
        if units.Unit(source) == units.Unit(target):
            return 1.0, 0.0
        zero, hundred = (float(units.Quantity(v, source).m_as(target)) for v in (0.0, 100.0))
    except Exception:  # pint raises many kinds on text that is not a unit
        return None
    return float(hundred - zero) / 100, float(zero)
