// Below the figure of trajectories: what of it is seen, as on the site, and handles that drag the modes of its mixture.
// chart.js calls window.toydiffOver before and after it draws a figure that has layers.
const figure = () => document.querySelector(".st-key-picture .js-plotly-plot");
const TURNS = ["plotly_animatingframe", "plotly_afterplot", "plotly_relayout"]; // another time, size or part of the plane

function begin() {
  let places = [];
  const modes = window.toydiffModes(figure, REACH, (k, at, held) => {
    places = places.with(k, at);
    modes.arrange(places);
    if (!held) figure().tell("drags", [k, ...at]);
  });
  modes.board.style.pointerEvents = "none"; // but for the handles: dots below are touched as ever
  const layers = window.toydiffLayers(run, figure, () => figure().redraw(), { modes: draw });
  const later = () => setTimeout(() => figure()?.layers && draw(), 0);

  function run() {
    const { mixture, levels, schedule, size, wide } = figure().layers, E = window.toydiffExact;
    const D = E.denoiser(window.toydiffMixtures({ mixtures: { own: mixture } }).NAMED.own);
    return { D, schedule: E.SCHEDULES[schedule], size, levels, scale: ({ alpha, sigma }) => (wide ? 1 / Math.hypot(alpha, sigma) : 1) };
  }

  function draw() {
    layers.draw();
    modes.board.hidden = !layers.on.modes;
    if (!layers.on.modes) return;
    // once: what is put anew into the page lets go of the pointer
    if (modes.board.parentElement !== figure().parentElement) figure().after(modes.board);
    modes.arrange(places);
  }

  function drawn(place) { // what was dragged and is not on show yet stays where it was let go
    place.besides = layers.besides;
    for (const turn of TURNS) place.removeListener(turn, later), place.on(turn, later);
    const waits = place.drags?.at(-1)[0] > place.seen || modes.board.querySelector(".dragged");
    if (!waits) places = place.layers.mixture.map((row) => row.slice(0, 2).map((v) => Math.round(v * 1e3) / 1e3 + 0));
    draw();
  }

  return { apply: layers.apply, drawn, boxes: layers.boxes };
}

export default function ({ parentElement }) {
  const over = (window.toydiffOver ??= begin()), row = parentElement.querySelector(".switches");
  if (row.childElementCount) return;
  row.append("Show", ...over.boxes());
  if (figure()) over.drawn(figure());
}
