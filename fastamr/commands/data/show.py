"""``fastamr show DATA --clip N --out FILE``: a clip as animation or as a strip of frames."""

from __future__ import annotations

from typing import Any

from ...errors import UsageError
from ..options import FLAG, CommandParser, Given, add_reading, choice, reading

AXES = ("y", "z", "-y", "auto")


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    chosen = [name for name in ("mask", "guidance", "reconstruction") if getattr(given, name)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} are drawn over the same joints: choose one")
    if given.checkpoint and not chosen:
        chosen = ["reconstruction"]
    if chosen == ["reconstruction"] and not given.checkpoint:
        raise UsageError("--reconstruction needs --checkpoint RUN, the model that reconstructs")

    from ...files import check_writable, make_folder
    from ...models.base import model_files
    from ...visualization.animation import ANIMATIONS, draw_animation
    from ...visualization.figures import PICTURES, picture_format, width_inches
    from ...visualization.strip import draw_strip

    ending = picture_format(given.out, (*ANIMATIONS, *PICTURES))
    check_writable(given.out, given.data, *model_files(given.checkpoint))
    content = _content(given, chosen)
    make_folder(given.out)
    view = {"up": given.up, "azimuth": given.azimuth, "elevation": given.elevation, "unit": given.unit}
    if ending in ANIMATIONS:
        draw_animation(given.out, content["clip"], content["overlay"], fps=given.fps, **view)
    else:
        width = None if given.width is None else width_inches(given.width)
        draw_strip(given.out, **content, frames=given.frames, width=width, **view)
    print(f"written to {given.out}")


def _content(given: Given, chosen: list[str]) -> dict[str, Any]:
    """Return the clip, its overlay and the traces below it."""
    import torch

    from ...data import read
    from ...data.to_body import for_layout
    from ...features.extract import check_fit, model_channels
    from ...features.run_settings import run_steps
    from ...models import load_pretrained
    from ...visualization.clip import find_clip, read_clip
    from ...visualization.overlays import as_model_sees, guidance_overlay, mask_overlay, model_clip
    from ...visualization.reconstruction import predict

    data = read(given.data, **reading(given, rate=False))
    index = find_clip(data, given.clip)
    if not chosen:
        clip = read_clip(data, index).part(given.start, given.stop)
        return {"clip": clip, "overlay": None, "traces": None}
    data, index = data.select([index]), 0
    model = None
    if given.checkpoint:
        model = load_pretrained(given.checkpoint)
        check_fit(model, data)
        data = for_layout(data, model.layout, run_steps(given.checkpoint), model_channels(model))
    seen = model_clip(data, index, model.frames if model else given.model_frames)
    seen = as_model_sees(seen, model) if model else seen
    traces = None
    if chosen == ["reconstruction"]:
        assert model is not None
        prediction = predict(model, seen, seed=given.seed, unit=given.unit)
        overlay, traces = prediction.overlay, prediction.traces
    elif chosen == ["guidance"]:
        guide = getattr(model, "guidance", None)
        weights = guide(*model.prepare(seen.clips, seen.valid)) if model and guide is not None else None
        overlay = guidance_overlay(seen, weights)
    else:
        options: dict[str, Any] = {"patch_frames": given.patch_frames, "ratio": given.ratio}
        if model:
            clips, valid = model.prepare(seen.clips, seen.valid)
            keep = model.choose_visible(clips, seed=torch.tensor([given.seed, 0]), valid=valid)
            options = {"patch_frames": model.config.patch_frames, "keep": keep}
        overlay = mask_overlay(seen, seed=given.seed, **options)
    shown = seen.shown.part(given.start, given.stop)
    return {"clip": shown, "overlay": overlay.part(given.start, given.stop), "traces": traces}


def _parser() -> CommandParser:
    parser = CommandParser("show", "DATA --out FILE", "Draw a clip as an animation or as a strip of frames.")
    parser.add_argument(
        "data", metavar="DATA", help="the packed file, or any other that fastamr import reads"
    )
    add = parser.add_argument_group("clip and picture").add_argument
    add("--clip", default="0", metavar="N|NAME", help="which clip, by number from 0 or by name")
    add("--out", required=True, metavar="FILE",
        help="the picture: .gif or .mp4 (needs ffmpeg) for an animation, .png, .svg or .pdf for a strip")  # fmt: skip
    add("--frames", type=int, default=8, help="frames of a strip")
    add("--width", metavar="column|text|INCHES",
        help="of a strip: column (3.25 inches) and text (6.875) are those of two-column papers")  # fmt: skip
    add("--fps", type=float, metavar="RATE",
        help="frames an animation shows a second: the clip's rate, or 12")  # fmt: skip
    add = parser.add_argument_group("what a model sees and makes of it").add_argument
    add("--checkpoint", metavar="RUN",
        help="folder of a run, a shipped model, or owner/name of the Hugging Face Hub; its frames, patches, masking "
        "and steps are taken")  # fmt: skip
    add("--mask", action=FLAG, help="show visible and masked tokens")
    add("--guidance", action=FLAG, help="show AMR's guidance map W, the weight in the loss")
    add("--reconstruction", action=FLAG,
        help="show what the model of --checkpoint makes of the visible tokens; on with --checkpoint")  # fmt: skip
    add = parser.more("overlays without --checkpoint").add_argument
    add("--ratio", type=float, default=0.9, metavar="SHARE", help="share of masked tokens")
    add("--patch-frames", type=int, default=4, help="frames of a token")
    add("--model-frames", type=int, default=120, help="frames that the clip is resized to")
    add("--seed", type=int, default=0, help="of the mask, also with --checkpoint")
    add = parser.more("part and view of the clip").add_argument
    add("--start", type=int, default=0, metavar="FRAME", help="first frame that is shown")
    add("--stop", type=int, metavar="FRAME", help="frame before which to stop; by default the end")
    add("--up", default="auto", **choice("up", AXES),
        help="the axis that points up; auto goes by the trunk in 3-D, and is that of the image in 2-D")  # fmt: skip
    add("--azimuth", type=float, default=-70.0, metavar="DEGREES", help="horizontal angle of view")
    add("--elevation", type=float, default=12.0, metavar="DEGREES", help="vertical angle of view")
    add("--unit", metavar="NAME",
        help="unit of the coordinates, written on the axes; '' for none; by default m, px for 2-D joints")  # fmt: skip
    add_reading(parser.more("how the file is read"), rate=False)
    return parser
