"""The page, in a real browser: in TensorBoard with both of its data providers, and as one file."""

import json
import math
from importlib.util import find_spec
from unittest.mock import patch
from xml.etree import ElementTree

import pytest

from lightning_ib import History, InformationPlaneCallback, InformationPoint
from lightning_ib.records import history_to_json, measurement_to_json, measurements_of
from lightning_ib.records.bound import BoundLine
from lightning_ib.report.reporter import Reporter
from lightning_ib.tensorboard_plugin.files import self_contained_html
from tests.helpers.browser import CHROMIUM, FLAGS, WITH_SCROLLBARS, opened, places, tensorboard, values
from tests.helpers.histories import point
from tests.helpers.tiny import BATCH, N_TRAIN, TinyModule, pl, train_loader, trainer, val_loader
from tests.unit.records.test_phases import gradients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH: apt-get install chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright: pip install playwright"),
    pytest.mark.filterwarnings("ignore:.* could not be estimated"),
]

# Where the page is the same, one file is quick.
everywhere = pytest.mark.parametrize("address", ["fast", "slow", "file"], indirect=True, scope="module")
in_one_file = pytest.mark.parametrize("address", ["file"], indirect=True, scope="module")
in_both = pytest.mark.parametrize("address", ["fast", "file"], indirect=True, scope="module")

EPOCHS = 4
N_STEPS = N_TRAIN // BATCH
RUNS = ["version_0", "version_1"]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Two seeds of a real training, and their histories; without the pictures, which the page has no use for."""
    folder, histories = tmp_path_factory.mktemp("board"), []
    with patch.object(Reporter, "_picture", lambda *_: False):
        for seed in range(2):
            pl.seed_everything(seed, verbose=False)
            callback = InformationPlaneCallback(estimators=["probe", "kde"])
            trainer(folder, callback, max_epochs=EPOCHS).fit(TinyModule(), train_loader(), val_loader())
            histories.append(callback.history)
    return folder / "lightning_logs", histories


@pytest.fixture(scope="module")
def address(request, board, tmp_path_factory):
    """TensorBoard's tab with either provider, and one file with the data inside."""
    folder, histories = board
    if request.param == "file":
        runs = zip(RUNS, histories)
        made = {name: history_to_json(history) for name, history in runs}
        file = tmp_path_factory.mktemp("page") / "plane.html"
        file.write_text(self_contained_html(made), encoding="utf-8")
        yield file.as_uri()
        return
    with tensorboard(
        folder,
        f"--load_fast={'true' if request.param == 'fast' else 'false'}",
        ready=lambda runs: json.loads(runs)["runs"] and len(json.loads(runs)["runs"]) == 2,
    ) as found:
        yield f"{found}/#information_plane"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=FLAGS, ignore_default_args=WITH_SCROLLBARS)
        yield browser
        browser.close()


@pytest.fixture
def seen(browser, address):
    """The page, fresh."""
    with opened(browser, address) as found:
        found.part.wait_for_function("document.querySelectorAll('.point').length === 4")
        yield found


@everywhere
def test_both_runs_and_all_layers_are_on_one_plane(seen):
    assert set(places(seen.part)) == {(layer, run) for layer in ("hidden", "out") for run in RUNS}
    assert seen.part.text_content("#moment") == f"epoch {EPOCHS}"
    assert "I(X;T) [bits]" in seen.part.text_content(".planes svg")
    labels = seen.part.query_selector_all(".planes [data-part=label]")
    assert [label.text_content() for label in labels] == ["hidden", "out"]


@everywhere
def test_slider_keys_and_play_change_what_is_drawn(seen):
    part, last = seen.part, places(seen.part)
    part.focus("#slider")
    part.press("#slider", "ArrowLeft")
    assert part.text_content("#moment") == f"epoch {EPOCHS - 1}"
    before = places(part)
    assert before != last
    part.evaluate("""() => {
        const slider = document.getElementById("slider");
        slider.value = 0;
        slider.dispatchEvent(new Event("input"));
    }""")
    assert part.text_content("#moment") == "epoch 0"
    assert places(part) not in (before, last)
    part.select_option(".bar select", "4")
    part.click("#play")
    part.wait_for_function(f"document.getElementById('moment').textContent === 'epoch {EPOCHS}'", timeout=10_000)
    assert places(part) == last


@everywhere
def test_hover_shows_the_values_of_the_history(seen, board):
    part = seen.part
    for run, history in zip(RUNS, board[1]):
        for layer in ("hidden", "out"):
            # Markers may lie on one another
            part.dispatch_event(f".point[data-layer={layer}][data-run={run}]", "pointerover", {"bubbles": True})
            expected = {
                f"{one.source}/{one.quantity}": one.value for one in history.last().records() if one.layer == layer
            }
            shown = values(part)
            assert shown.keys() == expected.keys()
            for name, value in expected.items():
                assert math.isclose(shown[name], value, rel_tol=1e-12) or math.isnan(value), name
            words = part.text_content(".details")
            assert f"{layer} · {run} · epoch {EPOCHS}" in words
            assert "N = 80" in words
            assert "Discretized: " in words
            point = next(one for one in history if one.layer == layer and one.epoch == EPOCHS)
            assert f"{point.verdict}: " in words


@in_both
def test_keyboard_alone_reaches_every_point(seen):
    part = seen.part
    part.focus(".point[tabindex='0']")
    reached = set()
    for _ in range(4):
        reached.add(part.evaluate("document.activeElement.dataset.layer + document.activeElement.dataset.run"))
        assert part.evaluate("document.activeElement.dataset.layer") in part.text_content(".details")
        seen.page.keyboard.press("ArrowRight")
    assert len(reached) == 4
    seen.page.keyboard.press("PageUp")
    assert part.text_content("#moment") == f"epoch {EPOCHS - 1}"


@in_one_file
def test_estimators_units_and_modes_are_chosen_on_the_same_plane(seen, board):
    part, counted = seen.part, places(seen.part)
    part.select_option("#source", "kde")
    assert places(part) != counted
    assert "kde" in part.text_content(".planes svg")
    part.select_option("#source", "counted")
    assert places(part) == counted
    part.select_option("#unit", "nats")
    part.dispatch_event(".point[data-layer=out][data-run=version_0]", "pointerover", {"bubbles": True})
    bits = next(one.i_ty for one in board[1][0].last() if one.layer == "out")
    assert math.isclose(values(part)["cells/I_TY"], bits * math.log(2), rel_tol=1e-12)
    part.select_option("#mode", "mean")
    assert set(places(part)) == {("hidden", ""), ("out", "")}
    part.select_option("#mode", "beside")
    assert len(part.query_selector_all(".planes > svg")) == 2
    part.uncheck("[data-layer=hidden] >> nth=0")
    assert {layer for layer, _ in places(part)} == {"out"}
    part.uncheck("[data-run=version_1] >> nth=0")
    assert set(places(part)) == {("out", "version_0")}


@in_one_file
def test_what_is_seen_is_saved(seen, board, tmp_path):
    part = seen.part
    part.uncheck("[data-run=version_1] >> nth=0")
    files = {}
    for kind in ("svg", "png", "csv"):
        with seen.page.expect_download() as download:
            part.click(f"#{kind}")
        files[kind] = tmp_path / f"saved.{kind}"
        download.value.save_as(files[kind])
    root = ElementTree.parse(files["svg"]).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "I(T;Y) [bits]" in "".join(root.itertext())
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    saved, expected = History.read_csv(files["csv"]), board[1][0]
    assert {one[:5]: one[5:] for one in map(readable, saved.records())} == {
        one[:5]: one[5:] for one in map(readable, expected.records())
    }


def readable(record):
    return tuple("nan" if isinstance(value, float) and math.isnan(value) else value for value in record)


@in_both
def test_a_link_restores_the_view(seen, browser, address):
    part = seen.part
    part.select_option("#unit", "nats")
    part.uncheck("[data-layer=hidden] >> nth=0")
    part.check("#logarithmic")
    part.press("#slider", "ArrowLeft")
    part.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    )  # as in a frame without the right
    part.click("#link")
    link = part.get_attribute("#address", "href")
    expected = places(part)
    with opened(browser, link) as again:
        again.part.wait_for_selector(".point")
        assert again.part.text_content("#moment") == f"epoch {EPOCHS - 1}"
        assert set(places(again.part)) == set(expected)
        assert again.part.is_checked("#logarithmic")
        assert "[nats]" in again.part.text_content(".planes svg")


# -- bad input, from one file ------------------------------------------------------------------------------------------


def a_page(tmp_path, runs):
    file = tmp_path / "plane.html"
    file.write_text(self_contained_html(runs), encoding="utf-8")
    return file.as_uri()


def test_runs_in_different_units_and_with_other_layers_share_a_plane_in_one_unit(browser, board, tmp_path):
    ours = board[1][0]
    other = History(
        one._replace(layer=f"</script>{one.layer}", unit="nats", value=one.value * math.log(2)) if one.unit else one
        for one in ours.records()
    )
    with opened(browser, a_page(tmp_path, {"<b>bits": history_to_json(ours), "nats": history_to_json(other)})) as found:
        at = places(found.part)
        assert at["hidden", "<b>bits"] == at["</script>hidden", "nats"]
        assert "[bits]" in found.part.text_content(".planes svg")


def test_points_that_are_nan_are_left_out_and_a_later_version_is_named(browser, board, tmp_path):
    records = [one._replace(value=math.nan) if one.epoch == 2 else one for one in board[1][0].records()]
    measured = history_to_json(History(records))
    later = json.dumps(json.loads(measured[-1]) | {"version": 9, "epoch": 99})
    with opened(browser, a_page(tmp_path, {"mine": [*measured, later]})) as found:
        assert "mine: a measurement was written by a later version" in found.part.text_content(".faults")
        assert len(places(found.part)) == 2
        for _ in range(2):
            found.part.press("#slider", "ArrowLeft")
        assert found.part.text_content("#moment") == "epoch 2"
        assert places(found.part) == {}


def test_gradients_and_a_bound_are_shown_where_they_were_logged(browser, board, tmp_path):
    points = [one for one in board[1][0].records() if one.quantity == "I_XT" and one.source == "cells"]
    more = [one._replace(source="gradient", quantity="grad_snr", unit="", value=0.5) for one in points]
    more += [one._replace(source="bound", quantity="I_TY_bound", value=min(one.value, 2.0)) for one in points]
    records = sorted([*board[1][0].records(), *more], key=lambda one: one[:2])
    with opened(browser, a_page(tmp_path, {"mine": history_to_json(History(records))})) as found:
        assert found.part.text_content(".charts").endswith("gradient SNR")
        assert found.part.query_selector(".planes [data-part=bottleneck]") is not None
        assert "IB bound" in found.part.text_content(".planes")


def test_between_the_points_of_a_plane_gradients_go_on(browser, board, tmp_path):
    """Measured less often than gradients, a plane keeps its points, as the charts keep their values."""
    points = board[1][0]
    layers = [*dict.fromkeys(point.layer for point in points), "all_layers"]
    seldom = History(record for record in points.records() if record.epoch % 2 == 0)
    both = seldom + sum(
        (gradients(epoch, step=N_STEPS * epoch, layers=layers) for epoch in range(1, EPOCHS + 1)), History()
    )
    file = tmp_path / "plane.html"
    file.write_text(self_contained_html({"a": history_to_json(both)}), encoding="utf-8")
    with opened(browser, f"{file.as_uri()}#time=3") as found:
        found.part.wait_for_selector(".point")
        assert found.part.text_content("#moment") == "epoch 3"
        assert {layer for layer, _ in places(found.part)} == {"hidden", "out"}
        titles = [one.text_content() for one in found.part.query_selector_all(".chart")]
        assert any("gradient SNR" in title and "gradient)" not in title for title in titles)


def test_the_curve_of_a_measurement_is_drawn_in_the_unit_of_the_page_and_named(browser, board, tmp_path):
    """Within the plane: with shade above where it is the only one; two curves are both drawn, a far one is named."""
    ours = board[1][0]
    near = BoundLine([0.0, 2.0, 9.0], [0.0, 2.0, 2.0], "bits", "bound: min(I(X;T), H(Y))")
    far = BoundLine([0.0, 20.0], [40.0, 50.0], "nats", "IB bound")
    runs = {}
    for name, bound in (("near", near), ("far", far)):
        first, *others = measurements_of(ours)
        runs[name] = [measurement_to_json(first, bound=bound), *map(measurement_to_json, others)]
    with opened(browser, a_page(tmp_path, {"near": runs["near"]})) as found:
        (path,) = found.part.query_selector_all(".planes [data-part=bottleneck]")
        bits = path.get_attribute("d")
        assert "min(I(X;T), H(Y))" in found.part.text_content(".planes")
        assert found.part.query_selector(".planes [data-part=beyond]") is not None
        found.part.select_option("#unit", "nats")
        assert found.part.get_attribute(".planes [data-part=bottleneck]", "d") == bits, "the axes are scaled alike"
    with opened(browser, a_page(tmp_path, runs)) as found:
        assert len(found.part.query_selector_all(".planes [data-part=bottleneck]")) == 2
        assert "IB bound ↑" in found.part.text_content(".planes")
        assert found.part.query_selector(".planes [data-part=beyond]") is None


def test_a_page_without_measurements_says_so(browser, tmp_path):
    with opened(browser, a_page(tmp_path, {"empty": []})) as found:
        assert "There are no measurements." in found.part.text_content(".planes")


def chosen(part, layer, run):
    part.dispatch_event(f".point[data-layer={layer}][data-run={run}]", "pointerover", {"bubbles": True})


def test_what_the_reader_chose_stays_where_it_is(browser, board, tmp_path):
    """The focus, through details that make the page longer and through redraws; the moment, from epochs to steps."""
    runs = dict(zip(RUNS, map(history_to_json, board[1])))
    with opened(browser, a_page(tmp_path, runs)) as found:
        part = found.part
        part.focus(".point[data-layer=out][data-run=version_1]")
        found.page.wait_for_timeout(400)
        assert part.evaluate("document.activeElement.dataset.run") == "version_1"
        part.focus("input[data-layer=hidden]")
        found.page.keyboard.press("Space")
        assert part.evaluate("document.activeElement.dataset.layer") == "hidden"
        assert {layer for layer, _ in places(part)} == {"out"}
        part.press("#slider", "ArrowLeft")
        part.select_option("#clock", "step")
        step = board[1][0].until(EPOCHS - 1, 10**9)[-1].step
        assert part.text_content("#moment") == f"step {step}"
        found.page.keyboard.press("Alt+ArrowLeft")
        assert part.text_content("#moment") == f"step {step}"
        part.click("#play")
        part.press("#slider", "ArrowRight")  # play goes on from there
        part.wait_for_function("document.getElementById('play').textContent === '▶'", timeout=15_000)


def test_a_run_that_ended_is_pale_and_no_part_of_the_mean(browser, board, tmp_path):
    long, short = board[1][0], board[1][1].until(2, 10**9)
    runs = {"long": history_to_json(long), "short": history_to_json(short)}
    with opened(browser, a_page(tmp_path, runs)) as found:
        part = found.part
        assert part.get_attribute(".point[data-run=short][data-layer=out]", "opacity") == "0.35"
        assert part.get_attribute(".point[data-run=long][data-layer=out]", "opacity") == "1"
        part.focus(".point[data-run=short][data-layer=out]")
        assert "This run ended at epoch 2" in part.text_content(".tooltip")
        part.select_option("#mode", "mean")
        expected = next(one for one in long.last() if one.layer == "out")
        label = part.get_attribute(".point[data-layer=out]", "aria-label")
        assert f"mean of 1 runs: I(X;T) {expected.i_xt:.4f}, I(T;Y) {expected.i_ty:.4f} bits" in label


def test_an_unreliable_coordinate_makes_a_hollow_point_with_its_reason(browser, board, tmp_path):
    records = [
        one._replace(verdict="saturated") if (one.source, one.quantity) == ("kde", "I_XT") else one
        for one in board[1][0].records()
    ]
    with opened(browser, a_page(tmp_path, {"mine": history_to_json(History(records))})) as found:
        found.part.select_option("#source", "kde")
        assert found.part.get_attribute(".point[data-layer=out]", "data-verdict") == "saturated"
        chosen(found.part, "out", "mine")
        assert "kde · saturated: I(X;T) is near log M" in found.part.text_content(".details")
        found.part.select_option("#source", "probe")
        assert "I(X;T) [bits], cells or bins" in found.part.text_content(".planes")


def test_a_damaged_measurement_is_named_and_the_others_are_shown(browser, board, tmp_path):
    damaged = ['{"version":1,"epoch":3}', "7", '{"version":1,"epoch":9,"step":9,"layers":["a"],"series":[null]}']
    runs = {"9": history_to_json(board[1][0]), "10": damaged, "1²2": damaged + history_to_json(board[1][1])}
    with opened(browser, a_page(tmp_path, runs)) as found:
        assert {run for _, run in places(found.part)} == {"9", "1²2"}
        assert "10: a measurement is incomplete" in found.part.text_content(".faults")
        labels = found.part.query_selector_all("aside fieldset:first-of-type label.choice")
        assert [label.text_content() for label in labels] == list(runs)


def test_a_narrow_window_has_everything_in_one_column(browser, board, tmp_path):
    with opened(browser, a_page(tmp_path, {"mine": history_to_json(board[1][0])})) as found:
        for width in (1000, 700):
            found.page.set_viewport_size({"width": width, "height": 800})
            found.page.wait_for_timeout(250)
            assert found.part.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("steps", "checked"), [([0, 1, 2, 3, 5, 8, 13, 20, 32, 50, 79], True), (range(0, 80, 8), False)]
)
def test_measurements_in_equal_ratios_begin_on_a_logarithmic_axis(browser, tmp_path, steps, checked):
    points = [point(0.1 * k, layer="out", epoch=step // 40, step=step) for k, step in enumerate(steps)]
    file = tmp_path / "page.html"
    file.write_text(self_contained_html({"run": history_to_json(History.of(points))}), encoding="utf-8")
    with opened(browser, file.as_uri()) as seen:
        assert seen.part.text_content("#moment") == f"step {max(steps)}"
        assert seen.part.is_checked("#logarithmic") == checked
        seen.part.click("#logarithmic")  # a link keeps what the reader took back
        seen.part.wait_for_function(f"location.hash.includes('logarithmic={str(not checked).lower()}')")


def test_of_several_targets_one_is_chosen_and_all_are_saved(browser, tmp_path):
    made = History()
    for epoch in range(3):
        point = InformationPoint.missing("out", n_samples=80, unit="bits", epoch=epoch, step=epoch)
        point = point._replace(i_xt=3.0, h_t=3.0, h_y=2.0, saturation=0.5, i_ty=1.5, target="class", verdict="ok")
        made = made + History.of([point, point._replace(i_ty=0.5, target="coarse", verdict="target_saturated")])
    with opened(browser, a_page(tmp_path, {"mine": history_to_json(made)})) as found:
        part = found.part
        assert [one.text_content() for one in part.query_selector_all("#target option")] == ["class", "coarse"]
        assert "mine · class" in part.text_content(".planes")
        part.hover(".point")
        assert values(part)["cells/I_TY"] == 1.5
        part.select_option("#target", "coarse")
        assert "mine · coarse" in part.text_content(".planes")
        part.hover(".point")
        assert values(part)["cells/I_TY"] == 0.5
        assert values(part)["cells/H_T"] == 3.0
        assert "most samples have a target of their own" in part.text_content(".details")
        with found.page.expect_download() as saved:
            part.click("#csv")
        assert sorted(map(repr, History.read_csv(saved.value.path()).records())) == sorted(map(repr, made.records()))
