// The page of time grids and guidance, computed here: where the steps of each grid lie, and the errors of two solvers.
"use strict";
window.toydiffLive = (page) => {
  const { power, uniforms, noise, labels, solvers, room, dark: turned } = page.live;
  const E = window.toydiffExact, { number, limits, ticks } = window.toydiffAxes, { NAMED, rowsOf, mixtureOf, value, several } = window.toydiffMixtures(page.live);
  const kept = new Map(), normals = new Float32Array(Uint8Array.from(atob(noise), (c) => c.charCodeAt(0)).buffer), TOLERANCE = 1e-9;

  const GRIDS = Object.fromEntries(E.GRIDS.map((name) => [name, true]));
  const all = (text, known) => text.split(", ").every((word) => Object.hasOwn(known, word));
  function knows(name, text) {
    const known = { schedule: E.SCHEDULES, grids: GRIDS, mixture: NAMED }[name];
    return !known || all(text, known);
  }
  const draws = (chosen) => ["schedule", "grids"].every((name) => knows(name, chosen[name])) && Boolean(NAMED[chosen.mixture] || rowsOf(chosen.mixture));

  function truth(word, name, g) { // what all steps and grids share; the last ones are kept
    const key = `${word} ${name} ${g}`;
    if (kept.has(key)) return kept.get(key);
    const mixture = mixtureOf(word), schedule = E.SCHEDULES[name], classes = labels[word] ?? mixture.map((_, k) => k);
    const cond = uniforms.map((u) => classes[E.choose(mixture, u)]), D = E.guided(mixture, classes, cond, g);
    const [from, to] = [1, 0].map((t) => E.level(schedule, t)), x = Float64Array.from(normals, (z) => from.sigma * z);
    kept.set(key, { D, schedule, size: E.sizeOf(mixture, power), x, exact: E.flow(D, x, from, to, TOLERANCE) });
    if (kept.size > 20) kept.delete(kept.keys().next().value);
    return kept.get(key);
  }

  function measured({ mixture, schedule: name, grids, steps, g }) {
    const { D, schedule, size, x, exact } = truth(mixture, name, Number(g)), places = {}, rows = [];
    for (const grid of grids.split(", ")) {
      places[grid] = E.grid(schedule, Number(steps), size * Number(g) ** (1 / 3), grid); // guidance spreads predictions
      for (const solver of solvers.map((one) => one.name)) {
        const end = E.solve(D, schedule, solver, x, places[grid], size).xs.at(-1);
        const error = Math.sqrt(end.reduce((sum, v, i) => sum + (v - exact[i]) ** 2, 0) / (end.length / 2));
        rows.push({ grid, solver, steps: Number(steps), g: Number(g), error });
      }
    }
    return { places, rows };
  }

  function words(rows) {
    const by = (compare) => rows.reduce((one, other) => (compare(other.error, one.error) ? other : one));
    const best = by((a, b) => a < b), worst = by((a, b) => a > b), { steps, g } = rows[0], bold = (text) => `<b>${text}</b>`;
    let text = `In ${steps} steps the error goes from ${number(worst.error, 2)} (${bold(worst.solver)} on ${worst.grid}) to ${bold(number(best.error, 2))} (${bold(best.solver)} on ${best.grid}), with the same network. `;
    const favourite = solvers.map(({ name }) => [name, rows.filter((row) => row.solver === name).reduce((one, other) => (other.error < one.error ? other : one)).grid]);
    if (new Set(rows.map((row) => row.grid)).size > 1) {
      const same = favourite.every(([, grid]) => grid === favourite[0][1]);
      text += same ? `The best of these grids for both is ${favourite[0][1]}. ` : `The best grid of each: ${favourite.map(([name, grid]) => `${name} ${grid}`).join(", ")}. `;
    }
    return text + (g > 1 ? "Set guidance to 1 to see what guidance costs: nothing else changes." : "A grid is good for a solver and a problem, and not by itself.");
  }

  function made(chosen, figure, dark) {
    const { places, rows } = measured(chosen), { layout, data } = figure, names = Object.keys(places);
    const nsr = Object.fromEntries(names.map((name) => [name, places[name].map(({ alpha, sigma }) => sigma / alpha)]));
    const shown = limits(names.flatMap((name) => nsr[name]), 0.08), [low, high] = shown.map((power) => 10 ** power), [inTime, inLevel] = data;
    const steps = names.flatMap((name) => {
      const y = places[name].map(() => name), text = places[name].map(({ t }, i) => `t = ${t.toFixed(4)}, NSR = ${number(nsr[name][i], 4)}`);
      const symbols = nsr[name].map((n) => (n === 0 ? "triangle-right" : Number.isFinite(n) ? "line-ns" : "triangle-left"));
      return [
        { ...inTime, name, y, text, x: places[name].map(({ t }) => t) },
        { ...inLevel, name, y, text, x: nsr[name].map((n) => Math.min(Math.max(n, low), high)), marker: { ...inLevel.marker, symbol: symbols } },
      ];
    });
    const costs = solvers.map(({ name, color, symbol }, k) => {
      const own = rows.filter((row) => row.solver === name), pattern = data[data.length - solvers.length + k];
      return { ...pattern, x: own.map((row) => row.error), y: own.map((row) => row.grid), name, marker: { ...pattern.marker, symbol, color: (dark && turned[color]) || color } };
    });
    figure.data = [...steps, ...costs];
    layout.xaxis2.range = shown.toReversed();
    layout.xaxis3.range = limits(rows.map((row) => row.error), 0.12);
    Object.assign(layout.xaxis3, ticks(layout.xaxis3.range, ...room));
    const said = words(rows);
    return { figure, dark: [], words: said, alt: `${page.title}. ${said.replace(/<.*?>/g, "")}`, rows };
  }

  function own(name, texts) {
    if (name === "mixture") return value(texts.at(-1));
    return name === "grids" && texts.length && texts.every((text) => knows(name, text)) ? several(texts) : null;
  }

  return { knows, draws, value: own, made };
};
