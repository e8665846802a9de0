// What is seen of the planes of trajectories: the density, the paths, and the score at the time on show, each on or off.
// now(): the run on show, {D, schedule, size, levels, scale}; figure(): it, as it is drawn; redraw(): draws it anew, after apply;
// others: {name: what draws it} of further ones, off at first.
"use strict";
window.toydiffLayers = (now, figure, redraw, others = {}) => {
  const SVG = "http://www.w3.org/2000/svg", SIDE = 17, FINE = 48, plane = () => figure()?._fullLayout; // arrows along a side; steps of an exact path at least
  const on = { density: true, paths: true }, switched = { density: anew, paths: anew, score: draw, ...others };
  const sheets = [0, 1].map(() => document.createElementNS(SVG, "svg"));
  let kept; // the slider's place, for a figure that is drawn anew here
  for (const sheet of sheets) sheet.setAttribute("class", "sheet field");

  // Arrows along the score; the longest fill their cell, as |sigma score| = |eps| goes from 0 to infinity.
  function draw() {
    for (const sheet of sheets) sheet.remove();
    if (!on.score || !plane()?.xaxis2?._length) return;
    const { D, levels, scale } = now(), at = levels[Math.min(plane().sliders[0].active, levels.length - 2)]; // at t = 0 it is infinite
    const { font, xaxis, yaxis } = plane(), cell = xaxis._length / SIDE, x = new Float64Array(2 * SIDE * SIDE);
    for (let k = 0; k < SIDE * SIDE; k++) {
      x[2 * k] = xaxis.p2l(((k % SIDE) + 0.5) * cell) / scale(at);
      x[2 * k + 1] = yaxis.p2l(((Math.floor(k / SIDE) + 0.5) * yaxis._length) / SIDE) / scale(at);
    }
    const { eps } = D(x, at);
    let path = "";
    for (let k = 0; k < SIDE * SIDE; k++) {
      const size = Math.hypot(eps[2 * k], eps[2 * k + 1]) || 1, long = (0.45 * cell * size) / (0.5 + size);
      const [u, v] = [(-eps[2 * k] * long) / size, (eps[2 * k + 1] * long) / size]; // down the screen
      const [a, b] = [xaxis.l2p(x[2 * k] * scale(at)), yaxis.l2p(x[2 * k + 1] * scale(at))], point = (p, q) => `${(a + p).toFixed(1)} ${(b + q).toFixed(1)}`;
      path += `M${point(-u, -v)}L${point(u, v)}M${point(0.3 * u - 0.5 * v, 0.3 * v + 0.5 * u)}L${point(u, v)}L${point(0.3 * u + 0.5 * v, 0.3 * v - 0.5 * u)}`;
    }
    sheets.forEach((sheet, k) => {
      const [X, Y] = [plane()[`xaxis${k ? 2 : ""}`], plane()[`yaxis${k ? 2 : ""}`]];
      Object.assign(sheet.style, { left: `${X._offset}px`, top: `${Y._offset}px`, width: `${X._length}px`, height: `${Y._length}px` });
      sheet.innerHTML = `<path d="${path}" stroke="${font.color}" stroke-width="1.3" opacity="0.6"/>`;
    });
    figure().after(...sheets);
  }

  function apply({ data, layout: { images, sliders: [slider] }, frames }) { // before it is drawn
    for (const image of images) image.visible = on.density;
    for (const trace of data) if (!on.paths && trace.mode?.startsWith("lines")) trace.opacity = 0;
    if (kept === undefined) return;
    const { traces, data: states } = frames[(slider.active = kept)];
    traces.forEach((k, j) => Object.assign(data[k], states[j]));
    kept = undefined;
  }

  function anew() {
    kept = plane().sliders[0].active;
    redraw();
  }

  // A particle's path alone (chart.js): beside both solvers' the exact one from the same place, on both planes.
  function besides(start) {
    const E = window.toydiffExact, { D, schedule, size, levels, scale } = now(), fine = E.grid(schedule, Math.max(levels.length - 1, FINE), size);
    const way = [Float64Array.from(start, (v) => v / scale(fine[0]))];
    for (let i = 1; i < fine.length; i++) way.push(E.flow(D, way.at(-1), fine[i - 1], fine[i], 1e-6));
    const path = `M${way.map((x, i) => [...x].map((v) => Number((v * scale(fine[i])).toFixed(4))).join(",")).join("L")}`;
    const { color } = figure().data.find(({ marker }) => marker?.symbol === "circle-open").marker, line = { color, width: 2.5, dash: "dot" };
    return ["", 2].map((axis) => ({ type: "path", xref: `x${axis}`, yref: `y${axis}`, layer: "above", path, line }));
  }

  function boxes() { // to tick
    return Object.keys(switched).map((name) => {
      const label = document.createElement("label"), field = Object.assign(document.createElement("input"), { type: "checkbox", checked: Boolean(on[name]) });
      field.onchange = () => ((on[name] = field.checked), switched[name]());
      label.append(field, ` ${name}`);
      return label;
    });
  }

  return { on, apply, draw, besides, boxes };
};
