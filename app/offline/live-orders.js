// The page of orders, computed here: errors of solvers against network calls, on any mixture, schedule and time grid.
"use strict";
window.toydiffLive = (page) => {
  const { power, uniforms, normals, markings, dark: turned, orders: { steps, inner, window: lambdas, floor, tolerance, hidden, apart, air } } = page.live;
  const E = window.toydiffExact, { limits, ticks } = window.toydiffAxes, { NAMED, rowsOf, mixtureOf, value, several } = window.toydiffMixtures(page.live), kept = new Map();

  const all = (text, known) => text.split(", ").every((word) => Object.hasOwn(known, word));
  const GRIDS = Object.fromEntries([inner, ...E.GRIDS].map((name) => [name, true]));
  function knows(name, text) {
    const known = { schedule: E.SCHEDULES, grid: GRIDS, solvers: E.SOLVERS, mixture: NAMED }[name];
    return !known || all(text, known);
  }
  const draws = (chosen) => ["schedule", "grid", "solvers"].every((name) => knows(name, chosen[name])) && Boolean(NAMED[chosen.mixture] || rowsOf(chosen.mixture));

  function once(key, make) { // what was computed last is kept
    if (!kept.has(key)) kept.set(key, make());
    if (kept.size > 400) kept.delete(kept.keys().next().value);
    return kept.get(key);
  }

  function truth(word, schedule, grid) {
    const mixture = mixtureOf(word), on = E.SCHEDULES[schedule], size = E.sizeOf(mixture, power), D = E.denoiser(mixture);
    const levels = steps.map((N) => (grid === inner ? E.inner(on, N, lambdas) : E.grid(on, N, size, grid)));
    const x = E.start(mixture, levels[0][0], uniforms, normals), exact = E.flow(D, x, levels[0][0], levels[0].at(-1), tolerance);
    return { D, on, size, levels, x, exact };
  }

  function curve(key, solver) {
    const { D, on, size, levels, x, exact } = once(key, () => truth(...key.split(" | ")));
    const runs = levels.map((one) => E.solve(D, on, solver, x, one, size)), { order: declared } = markings[solver];
    const error = runs.map(({ xs }) => Math.sqrt(xs.at(-1).reduce((sum, v, i) => sum + (v - exact[i]) ** 2, 0) / (x.length / 2)));
    const above = error.map((e, k) => k).filter((k) => error[k] > floor).slice(-3);
    return { solver, declared, measured: above.length > 1 ? slope(above.map((k) => [Math.log(steps[k]), Math.log(error[k])])) : NaN, nfe: runs.map(({ calls }) => calls), error };
  }

  function slope(points) { // minus that of the least squares line
    const mean = (k) => points.reduce((sum, point) => sum + point[k], 0) / points.length, x = mean(0), y = mean(1);
    return -points.reduce((sum, [u, v]) => sum + (u - x) * (v - y), 0) / points.reduce((sum, [u]) => sum + (u - x) ** 2, 0);
  }

  function words(rows) {
    const known = rows.filter(({ measured }) => Number.isFinite(measured)), { guess, grid } = rows[0];
    if (!known.length) return "All errors here are rounding: these solvers are exact on this mixture, and have no slope to measure.";
    const best = known.reduce((one, other) => (other.declared > one.declared || (other.declared === one.declared && other.measured > one.measured) ? other : one));
    const said = "On these axes a solver is a line whose slope is its order p: twice the calls divide the error by 2ᵖ. ";
    if (guess === hidden) return `${said}<b>Which order has ${best.solver}?</b> Read it off the line and choose your guess: then all slopes are shown.`;
    const verdict = Math.abs(Number(guess) - best.measured) < 0.5 ? "right" : "not what the line says";
    const lost = known.filter(({ measured, declared }) => measured < declared - 0.35);
    const where = grid === inner ? "the steps are still too few, or the modes too narrow" : "from pure noise to clean data, an end of the grid can lower the order";
    return `${said}You guessed ${guess} for <b>${best.solver}</b>: ${verdict}; its last three points fall with slope <b>${best.measured.toFixed(2)}</b>, and it declares ${best.declared}.`
      + (lost.length ? ` Below their order here: ${lost.map(({ solver, measured }) => `${solver} (${measured.toFixed(2)})`).join(", ")}; ${where}.` : "");
  }

  function made({ mixture, schedule, grid, solvers, guess }, figure, dark) {
    const key = [mixture, schedule, grid].join(" | ");
    const rows = solvers.split(", ").map((solver) => ({ ...once(`${key} | ${solver}`, () => curve(key, solver)), schedule, grid, guess }));
    const last = ({ error }) => error.at(-1), sorted = [...rows].sort((one, other) => one.declared - other.declared || last(one) - last(other));
    const color = (name) => (dark && turned[name]) || name, { layout, data: [pattern] } = figure;
    figure.data = sorted.map(({ solver, declared, measured, nfe, error }) => {
      const { color: own, symbol, dash } = markings[solver], found = Number.isFinite(measured) ? `slope ${measured.toFixed(2)}` : "all rounding";
      return {
        ...pattern, x: nfe, y: error, name: guess === hidden ? solver : `${solver}: ${found}, order ${declared}`,
        line: { ...pattern.line, color: color(own), dash }, marker: { ...pattern.marker, symbol }, hovertemplate: `${solver}<br>%{x} NFE, error %{y:.2e}<extra></extra>`,
      };
    });
    layout.xaxis.range = limits(rows.flatMap(({ nfe }) => nfe), 0.04);
    layout.yaxis.range = limits(rows.flatMap(({ error }) => error), air);
    Object.assign(layout.xaxis, ticks(layout.xaxis.range));
    const seen = Math.log10(floor) >= layout.yaxis.range[0], line = { color: color("#7F7F7F"), dash: "dash", width: 1.5 };
    layout.shapes = seen ? [{ type: "line", line, x0: 0, x1: 1, xref: "x domain", y0: floor, y1: floor, yref: "y" }] : [];
    const note = { text: "rounding", xref: "x domain", x: 1, xanchor: "right", yref: "y", y: Math.log10(floor), yanchor: "bottom", showarrow: false };
    const reach = [layout.xaxis, layout.yaxis].map(({ range: [low, high] }) => high - low), ends = []; // slopes, each at the last point of its curve that has room
    for (const { solver, measured, nfe, error } of sorted) {
      const places = nfe.map((calls, i) => [Math.log10(calls), Math.max(Math.log10(error[i]), layout.yaxis.range[0])]);
      const end = places.findLast((place) => !ends.some(({ x, y }) => [x, y].every((at, k) => Math.abs(place[k] - at) / reach[k] <= apart[k])));
      if (!Number.isFinite(measured) || !end) continue;
      const text = `slope ${guess === hidden ? "?" : measured.toFixed(2)}`, font = { size: layout.font.size, color: color(markings[solver].color) };
      ends.push({ text, x: end[0], y: end[1], xanchor: "right", yanchor: "top", showarrow: false, font });
    }
    layout.annotations = [...ends, ...(seen ? [{ ...note, font: { size: layout.font.size } }] : [])];
    const said = words(rows);
    return { figure, dark: [], words: said, alt: `${page.title}. ${said.replace(/<.*?>/g, "")}`, rows };
  }

  function own(name, texts) {
    if (name === "mixture") return value(texts.at(-1));
    return name === "solvers" && texts.length && texts.every((text) => knows(name, text)) ? several(texts) : null;
  }

  return { knows, draws, value: own, made };
};
