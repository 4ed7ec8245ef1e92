"""Train a base from pictures, stage by stage (docs/pretraining.md). A stopped stage is resumed."""

from __future__ import annotations

from pathlib import Path

from ldm.config.process import run, starting

with starting():
    import pytorch_lightning as pl

    from ldm.config.cli import OneLineParser
    from ldm.config.loader import ROOT, rooted
    from ldm.config.schema import load_config
    from ldm.data.files import path_of
    from ldm.pretrain.settings import PretrainConfig
    from ldm.pretrain.stages import STAGES, Pretraining

CONFIG = "configs/pretrain_mini_gpu.yaml"


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument(
        "stage", choices=[*STAGES, "all"], help="stage to run; all: those of a base, in order"
    )
    parser.add_argument("--config", default=rooted(CONFIG, ROOT), metavar="YAML",
                        help=f"settings file [{CONFIG}]")  # fmt: skip
    parser.add_argument(
        "settings", nargs="*", metavar="section.key=value", help="settings that win over the file's"
    )
    args = parser.parse_intermixed_args(argv)
    config = load_config(path_of(args.config), args.settings, PretrainConfig)
    pl.seed_everything(config.seed, verbose=False)
    base = load_config(Path(config.start_from)).base
    sizes = load_config(Path(config.sizes)).base.architecture
    pretraining = Pretraining(config, sizes, (Path(base.path), base.architecture))
    for stage in pretraining.needed if args.stage == "all" else [args.stage]:
        print(f"== {stage}")
        print(pretraining.run(stage))


if __name__ == "__main__":
    run(main)
