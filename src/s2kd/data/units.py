"""Comparison of unit strings as CF writes them."""


def same_units(first: str, second: str) -> bool:
    """Whether `m**2 s**-2` and `m2/s2` or `degK` and `K` are one unit.

    An empty string fits every unit. Strings that no unit library knows ("cabs") are compared as
    text.
    """
    if not first or not second or first.strip() == second.strip():
        return True
    from cf_xarray.units import units  # seconds to import, and seldom needed

    try:
        return units.Unit(first) == units.Unit(second)
    except Exception:  # pint raises many kinds on text that is not a unit
        return False
