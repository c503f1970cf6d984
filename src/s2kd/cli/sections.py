"""Help of a group of verbs in sections, each verb with its example."""

from typing import Any

from typer.core import TyperGroup


class Sections(TyperGroup):
    """Verbs under the titles of their help panels; the epilog of a verb is its example.

    Typer itself draws panels as boxes, by Rich, which leave half a terminal's width to the text.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the name, the first sentence and the example of every verb."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            rows = sections.setdefault(command.rich_help_panel or "Verbs", [])
            rows.append((name, command.get_short_help_str(limit=200)))
            if command.epilog:
                rows.append(("", command.epilog))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
