// One particle on the planes of trajectories: at any place and time its denoiser, its score, and where both solvers and
// the exact flow take it from there. now(): the run on show, {D, schedule, size, levels, solvers, colors, scale, xs}, of
// which xs are the states of solver A as they are drawn: times scale(level); plane(): the figure's layout in full.
"use strict";
window.toydiffParticle = (now, plane) => {
  const E = window.toydiffExact, { number } = window.toydiffAxes, SVG = "http://www.w3.org/2000/svg";
  const board = Object.assign(document.createElement("div"), { className: "board particle", hidden: true });
  const sheets = [0, 1].map(() => document.createElementNS(SVG, "svg")), dot = Object.assign(document.createElement("button"), { type: "button", className: "mode" });
  for (const sheet of sheets) sheet.setAttribute("class", "sheet");
  board.append(dot);
  let x = null; // where it is, as it is drawn

  const axes = (k) => [plane()[`xaxis${k ? 2 : ""}`], plane()[`yaxis${k ? 2 : ""}`]];
  // the frame on show, but not the last one: at t = 0 the score of a point of data is infinite
  const index = () => Math.min(plane().sliders[0].active, now().levels.length - 2);

  function middle(states) { // of a plane's states that in the middle, which has not chosen yet
    const centre = axes(0).map(({ range: [low, high] }) => (low + high) / 2), far = (k) => Math.hypot(states[k] - centre[0], states[k + 1] - centre[1]);
    let best = 0;
    for (let k = 2; k < states.length; k += 2) if (far(k) < far(best)) best = k;
    return [states[best], states[best + 1]].map((v) => Math.round(v * 100) / 100);
  }

  // Of a state v at the level of number i: the prediction there, and the ways of both solvers and of the exact flow.
  function seen(v, i) {
    const { D, schedule, size, levels, solvers } = now(), rest = levels.slice(i), p = D(v, rest[0]);
    const exact = [v];
    for (let k = 1; k < rest.length; k++) exact.push(E.flow(D, exact.at(-1), rest[k - 1], rest[k], 1e-6));
    return { rest, p, score: E.score(p), exact, ways: solvers.map((name) => E.solve(D, schedule, name, v, rest, size, rest.map(() => new Float64Array(2))).xs) };
  }

  function draw() {
    if (board.hidden || !plane()?.xaxis2?._length) return;
    const { levels, scale, colors, xs } = now(), i = index(), by = document.querySelector(".figure").scale ?? 1;
    x ??= middle(xs[i]);
    const state = Float64Array.from(x, (v) => v / scale(levels[i])), { rest, p, score, exact, ways } = seen(state, i);
    const ink = plane().font.color, pulled = p.x0.map((v) => v * levels[i].alpha * scale(levels[i])); // x + sigma^2 score
    sheets.forEach((sheet, k) => {
      const [X, Y] = axes(k), at = ([u, v]) => [X.l2p(u), Y.l2p(v)], near = (v) => at(v).map((one) => one.toFixed(1)).join(" ");
      const line = (points, color, width, more = "") => `<path d="M${points.map(near).join("L")}" stroke="${color}" stroke-width="${width * by}" ${more}/>`;
      const path = (states) => states.map((v, j) => v.map((one) => one * scale(rest[j])));
      const [[a, b], [c, d]] = [at(x), at(pulled)], turn = Math.atan2(d - b, c - a), barb = (by2) => `${(c - 11 * by * Math.cos(turn + by2)).toFixed(1)} ${(d - 11 * by * Math.sin(turn + by2)).toFixed(1)}`;
      const [u, v] = at(p.x0), r = 6 * by;
      Object.assign(sheet.style, { left: `${X._offset}px`, top: `${Y._offset}px`, width: `${X._length}px`, height: `${Y._length}px` });
      sheet.innerHTML = line(path(exact), ink, 2, 'stroke-dasharray="1 6"') + line(path(ways[k]), colors[k], 4)
        + path(ways[k]).map((v) => line([v, v], colors[k], 9)).join("")
        + line([x, pulled], ink, 2) + (Math.hypot(c - a, d - b) > 3 ? `<path d="M${barb(0.45)}L${c.toFixed(1)} ${d.toFixed(1)}L${barb(-0.45)}" stroke="${ink}" stroke-width="${2 * by}"/>` : "")
        + `<path d="M${u - r} ${v}L${u} ${v - r}L${u + r} ${v}L${u} ${v + r}Z" stroke="${ink}" fill="${plane().paper_bgcolor}" stroke-width="${2 * by}"/>`;
    });
    const [X, Y] = axes(0), pair = (v) => `(${[...v].map((one) => number(one, 3)).join(", ")})`;
    Object.assign(board.style, { left: `${X._offset}px`, top: `${Y._offset}px`, width: `${X._length}px`, height: `${Y._length}px` });
    Object.assign(dot.style, { left: `${X.l2p(x[0])}px`, top: `${Y.l2p(x[1])}px` });
    const said = `t = ${number(levels[i].t, 3)}: denoiser x̂₀ = ${pair(p.x0)} (diamond), score = ${pair(score)}; arrow: x + σ² score = α x̂₀. Dotted: the exact way.`;
    board.dataset.hint = said;
    dot.setAttribute("aria-label", `particle at ${pair(x)}: arrows move it. ${said}`);
  }

  function place(event) {
    const box = board.getBoundingClientRect(), [X, Y] = axes(0);
    x = [X.p2l(event.clientX - box.left), Y.p2l(event.clientY - box.top)].map((v) => Math.round(v * 100) / 100);
    draw();
  }

  board.onpointerdown = (event) => (board.setPointerCapture(event.pointerId), place(event));
  board.onpointermove = (event) => event.buttons && place(event);
  dot.onkeydown = (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!step) return;
    event.preventDefault(), event.stopPropagation();
    x = x.map((v, k) => Math.round((v + step[k]) * 100) / 100);
    draw();
  };

  function show(open) {
    board.hidden = !open;
    if (!open) return sheets.forEach((sheet) => sheet.remove());
    const figure = document.querySelector(".figure"), { steps, active } = plane().sliders[0];
    figure.after(...sheets, board);
    x = null;
    if (active < steps.length - 1) return draw();
    window.Plotly.animate(figure, ...steps[Math.floor((steps.length - 1) / 2)].args); // where a particle chooses its mode
  }

  return { show, draw };
};
