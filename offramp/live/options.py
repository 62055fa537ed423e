"""Options that several commands share which talk MQTT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LiveSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, such as simulation.duration_s=30."
    ),
]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the scenario."),
]

# which arms are run
StrategiesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only this strategy; may be repeated (default: all)."),
]
SeedsOption = Annotated[
    list[int] | None, typer.Option(help="Training seed; may be repeated (default: the first).")
]
PoliciesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL", help="Only this policy; may be repeated (default: all)."),
]

# where nodes run that are started here
PinOption = Annotated[
    bool,
    typer.Option(
        "--pin/--no-pin",
        help="Give nodes that are started here processors of their own, where there are enough: as "
        "machines of their own have. Else the scheduler decides, anew in each arm.",
    ),
]
AwakeOption = Annotated[
    bool,
    typer.Option(
        "--awake",
        help="Keep idle processors from sleeping: a virtual machine's are given to others "
        "meanwhile, and inference takes longer then. As root, on Linux.",
    ),
]

# the broker, and how one gets in
BrokerOption = Annotated[
    str,
    typer.Option(metavar="URL", help="mqtt://[user[:password]@]host[:port], or mqtts:// (TLS)."),
]
OtherBrokerOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="mqtt://[user[:password]@]host[:port], or mqtts:// (default: one is started).",
    ),
]
CertificatesOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificates to trust (PEM).")
]
PrivateKeyOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Its first line is the password of the user (else $OFFRAMP_MQTT_PASSWORD).",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="5 or 3.1.1 (default: as the scenario says, else 5)."),
]
