// The page of trajectories, computed here: solver, schedule, steps, and a mixture that is drawn by hand. The figure is
// the page's own first one with other points in it.
"use strict";
window.toydiffLive = (page, set) => {
  const { power, uniforms, normals, colors, stochastic, wide, shades, dark: turned, ranges } = page.live;
  const E = window.toydiffExact, { NAMED, rowsOf, wordOf, mixtureOf, drawable, value } = window.toydiffMixtures(page.live);
  const noises = split(new Float32Array(Uint8Array.from(atob(page.live.noises), (c) => c.charCodeAt(0)).buffer), normals.length);
  let kept = {}, last, limits = null, dragged = false; // the last exact ends and run; the plane's limits while it is drawn on

  function split(values, size) {
    return Array.from({ length: values.length / size }, (_, k) => Float64Array.from(values.subarray(k * size, (k + 1) * size)));
  }

  const knows = (name, text) => ({ schedule: E.SCHEDULES, a: E.SOLVERS, b: E.SOLVERS, mixture: NAMED })[name]?.hasOwnProperty(text) ?? true;
  const draws = (chosen) => ["schedule", "a", "b"].every((name) => knows(name, chosen[name])) && (NAMED[chosen.mixture] || rowsOf(chosen.mixture));

  // ---- what is measured

  const shorter = (value) => window.toydiffAxes.number(value, 2);
  const distance = (one, other) => Math.sqrt(one.reduce((sum, value, i) => sum + (value - other[i]) ** 2, 0) / (one.length / 2));

  function runs({ mixture: word, schedule: name, a, b, steps }) {
    const mixture = mixtureOf(word), schedule = E.SCHEDULES[name], size = E.sizeOf(mixture, power), N = Number(steps), D = E.denoiser(mixture);
    const levels = E.grid(schedule, N, size), noise = E.start(mixture, levels[0], uniforms, normals), key = `${word} ${name} ${dragged}`;
    if (kept.key !== key) kept = { key, exact: E.flow(D, noise, levels[0], levels.at(-1), dragged ? 1e-4 : 1e-7) };
    const rows = [], paths = [], far = wide.includes(name), scale = ({ alpha, sigma }) => (far ? 1 / Math.hypot(alpha, sigma) : 1);
    for (const [side, solver] of [["A", a], ["B", b]]) {
      const path = E.solve(D, schedule, solver, noise, levels, size, noises), error = distance(path.xs.at(-1), kept.exact);
      const head = `${side}: ${solver}, ${path.calls} call${path.calls > 1 ? "s" : ""}, error ${shorter(error)}`;
      paths.push({ head: far ? `${head}, drawn as x/√(α²+σ²)` : head, solver, levels, xs: path.xs.map((x, i) => x.map((v) => v * scale(levels[i]))) });
      rows.push({ side, solver, steps: N, nfe: path.calls, rms_error: error, modes: mixture.length });
    }
    last = { word, D, schedule, size, levels, scale, solvers: [a, b], xs: paths[0].xs };
    return { mixture, exact: kept.exact, paths, rows };
  }

  function words(rows) {
    const [near, far] = [...rows].sort((one, other) => one.rms_error - other.rms_error), steps = `${near.steps} step${near.steps > 1 ? "s" : ""}`;
    let text = "From each noise the ODE has <b>one</b> exact end (its ring). ";
    if (near.solver === far.solver) text += `With ${steps} <b>${near.solver}</b> ends ${shorter(near.rms_error)} away from it. `;
    else {
      const times = far.rms_error / Math.max(near.rms_error, 1e-12);
      text += `With ${steps} <b>${near.solver}</b> ends ${shorter(near.rms_error)} away from it, <b>${far.solver}</b> ${shorter(far.rms_error)}`;
      text += times > 1.05 && times < 1e6 ? `: ${times.toFixed(1)} times as far. ` : ". ";
    }
    const wanders = [...new Set(rows.map((row) => row.solver))].filter((solver) => stochastic.includes(solver));
    if (wanders.length) return `${text}The noise added by ${wanders.join(" and ")} on the way makes another sample of the same density, which need not end there.`;
    if (near.modes === 1) return `${text}With one mode a particle has nothing to decide.`;
    return `${text}Move the time to see where paths turn: between noise and data, where a particle chooses its mode.`;
  }

  // ---- the figure

  const POINTS = 121, FEW = 9; // of a picture's side; states of a path that are dots
  const canvas = Object.assign(document.createElement("canvas"), { width: POINTS, height: POINTS }), pen = canvas.getContext("2d");

  function square(mixture, paths) { // [x low, x high], [y low, y high]: three standard deviations of each mode, and all states
    const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    const see = (p, j) => ((low[j] = Math.min(low[j], p)), (high[j] = Math.max(high[j], p)));
    for (const { x, y, stds: [s, r], axes: [a, b, c, d] } of mixture) {
      const spread = [3 * Math.hypot(a * s, b * r), 3 * Math.hypot(c * s, d * r)];
      [x, y].forEach((m, j) => (see(m - spread[j], j), see(m + spread[j], j)));
    }
    for (const { xs } of paths) for (const x of xs) x.forEach((v, i) => see(v, i % 2));
    const reach = (1.04 * Math.max(high[0] - low[0], high[1] - low[1])) / 2;
    return [0, 1].map((j) => [(low[j] + high[j]) / 2 - reach, (low[j] + high[j]) / 2 + reach]);
  }

  function picture(mixture, [[left, right], [bottom, top]], [pale, full]) { // of the density, the square root of its shade
    const line = (from, to) => Float64Array.from({ length: POINTS }, (_, i) => from + ((to - from) * i) / (POINTS - 1));
    const values = E.density(mixture, line(left, right), line(top, bottom)), image = pen.createImageData(POINTS, POINTS);
    const [from, to] = [pale, full].map((color) => [1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16)));
    const most = values.reduce((one, other) => Math.max(one, other)) || 1;
    values.forEach((p, k) => {
      const part = Math.sqrt(p / most);
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = Math.round(from[c] + part * (to[c] - from[c]));
      image.data[4 * k + 3] = 255;
    });
    pen.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  const cut = (v) => Math.round(v * 1e4) / 1e4;
  const side = (x, j) => Array.from({ length: x.length / 2 }, (_, i) => cut(x[2 * i + j]));
  function joined(xs, j) { // all paths as one line with gaps
    const out = [];
    for (let i = j; i < xs[0].length; i += 2) {
      for (const x of xs) out.push(cut(x[i]));
      out.push(null);
    }
    return out;
  }

  function made(chosen, figure, dark) {
    const { mixture, exact, paths, rows } = runs(chosen), [across, up] = limits ?? square(mixture, paths);
    const { layout, data } = figure, color = (name) => (dark && turned[name]) || name, air = (across[1] - across[0]) / (POINTS - 1);
    const source = picture(mixture, [across, up], shades[dark ? 1 : 0]), most = Math.floor(110 / paths.length);
    paths.forEach(({ head, solver, xs }, k) => {
      const [line, rings, dots] = data.slice(3 * k, 3 * k + 3), end = xs.at(-1);
      Object.assign(line, { x: joined(xs, 0), y: joined(xs, 1), mode: xs.length <= FEW ? "lines+markers" : "lines" });
      line.line.color = dots.marker.color = color(colors[solver]);
      Object.assign(rings, { x: side(exact, 0), y: side(exact, 1) });
      Object.assign(dots, { x: side(end, 0), y: side(end, 1) });
      Object.assign(layout.images[k], { source, x: across[0] - air / 2, y: up[1] + air / 2, sizex: air * POINTS, sizey: air * POINTS });
      (last.colors ??= [])[k] = line.line.color;
      layout.annotations[k].text = head.length <= most ? head : head.replace(/, (?=[^,]*$)/, ",<br>");
      layout[`xaxis${k ? k + 1 : ""}`].range = across;
      layout[`yaxis${k ? k + 1 : ""}`].range = up;
    });
    const lines = Math.max(...layout.annotations.map(({ text }) => text.split("<br>").length)) + 1, times = paths[0].levels.map(({ t }) => t);
    layout.margin.t = 10 + Math.floor(1.35 * layout.font.size * lines);
    figure.frames = times.map((t, i) => ({ name: String(i), traces: [2, 5], data: paths.map(({ xs }) => ({ type: "scatter", x: side(xs[i], 0), y: side(xs[i], 1) })) }));
    const [slider] = layout.sliders, [button] = layout.updatemenus[0].buttons, [, how] = slider.steps[0].args;
    slider.steps = times.map((t, i) => ({ args: [[String(i)], how], label: t.toFixed(3), method: "animate" }));
    slider.active = times.length - 1;
    button.args[0] = times.map((t, i) => String(i));
    button.args[1].frame.duration = Math.max(60, Math.floor(3600 / times.length));
    layers.apply(figure);
    const said = words(rows);
    return { figure, dark: [], words: said, alt: `${page.title}. ${said.replace(/<.*?>/g, "")}`, rows };
  }

  // ---- the same, at once: plotly takes as long as several frames of a film, so that while a control or a mode moves the
  // planes are drawn as a few shapes over those of the last figure

  const SVG = "http://www.w3.org/2000/svg", sheets = [0, 1].map(() => document.createElementNS(SVG, "svg"));
  for (const sheet of sheets) sheet.setAttribute("class", "sheet");

  function preview({ figure: { data, layout } }, place) {
    const full = place._fullLayout, by = place.scale, heads = place.querySelectorAll(".annotation-text");
    if (!full?.xaxis2?._length || place.closest("[hidden]")) return false;
    sheets.forEach((sheet, k) => {
      const X = full[`xaxis${k ? 2 : ""}`], Y = full[`yaxis${k ? 2 : ""}`], image = layout.images[k], [line, rings, dots] = data.slice(3 * k, 3 * k + 3);
      const at = (trace, i) => `${X.l2p(trace.x[i]).toFixed(1)} ${Y.l2p(trace.y[i]).toFixed(1)}`;
      const each = (trace, shape) => trace.x.map((v, i) => (v === null ? "" : shape(at(trace, i), trace.x[i - 1] ?? null))).join("");
      const stroke = (d, color, width, more = "") => `<path d="${d}" stroke="${color}" stroke-width="${width * by}" ${more}/>`;
      const spots = (trace) => each(trace, (point) => `M${point}h0`), r = (rings.marker.size / 2) * by, [left, top] = [X.l2p(image.x), Y.l2p(image.y)];
      const ring = (point) => `M${point}m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      const { color } = line.line, faint = `opacity="${line.opacity}"`;
      Object.assign(sheet.style, { left: `${X._offset}px`, top: `${Y._offset}px`, width: `${X._length}px`, height: `${Y._length}px`, background: layout.paper_bgcolor });
      const behind = `<image href="${image.source}" x="${left}" y="${top}" width="${X.l2p(image.x + image.sizex) - left}" height="${Y.l2p(image.y - image.sizey) - top}" preserveAspectRatio="none"/>`;
      sheet.innerHTML = (image.visible ? behind : "")
        + stroke(each(line, (point, before) => `${before === null ? "M" : "L"}${point}`), color, line.line.width, faint)
        + (line.mode.includes("markers") ? stroke(spots(line), color, line.marker.size, faint) : "")
        + stroke(each(rings, ring), rings.marker.color, rings.marker.line.width)
        + stroke(spots(dots), layout.paper_bgcolor, dots.marker.size + 2) + stroke(spots(dots), color, dots.marker.size);
      place.after(sheet);
      if (heads.length === 2) heads[k].textContent = layout.annotations[k].text.replace("<br>", " ");
    });
    return true;
  }

  // ---- drawing a mixture on the first plane: a click makes a mode, a drag moves it, Delete or a double click takes it away

  const figure = () => document.querySelector(".figure"), plane = () => figure()._fullLayout;
  const modes = window.toydiffModes(figure, ranges[0][1], (k, at, held) => {
    dragged = held;
    rows[k].splice(0, 2, ...at);
    update();
  }), { board } = modes;
  const hint = "A click makes a mode, a drag moves it, a double click takes it away. On a chosen one + and − change its width.";
  board.dataset.hint = hint;
  let word, rows = [], waits = false;

  const particle = window.toydiffParticle(() => last, plane);
  const layers = window.toydiffLayers(() => last, figure, () => set("mixture", last.word));
  const update = () => {
    word = wordOf(rows);
    modes.arrange(rows);
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => ((waits = false), set("mixture", word)));
  };

  function follow(chosen) { // after each figure
    const place = figure();
    for (const sheet of sheets) sheet.remove();
    place.besides = layers.besides;
    place.removeAllListeners?.("plotly_animatingframe");
    place.on?.("plotly_animatingframe", () => setTimeout(() => (particle.draw(), layers.draw()), 0));
    if (!dragged && !waits && chosen.mixture !== word) (word = chosen.mixture), (rows = drawable(word));
    if (!board.hidden && plane()) modes.arrange(rows);
    particle.draw(), layers.draw();
  }

  function remove(k) {
    if (rows.length > 1) rows.splice(k, 1), update();
  }

  board.ondblclick = ({ target }) => target !== board && remove(modes.index(target));
  board.onkeydown = (event) => {
    const k = modes.index(event.target), wider = { "+": 1.2, "=": 1.2, "-": 1 / 1.2 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") remove(k);
    else if (wider) rows[k][2] = Number(Math.min(Math.max(rows[k][2] * wider, ranges[2][0]), ranges[2][1]).toPrecision(3)), update();
    else return;
    event.preventDefault();
  };
  board.onclick = (event) => {
    if (event.target !== board || rows.length >= ranges.at(-1)) return;
    rows.push([...modes.at(event), ...rows.at(-1).slice(2)]);
    update();
  };

  function begin(chosen) {
    document.querySelector(".stBidiComponent").append(board);
    const buttons = { draw: [hint, (open) => ((board.hidden = !open), (limits = open ? [plane().xaxis.range, plane().yaxis.range].map((range) => [...range]) : null))],
      particle: ["The denoiser and the score of one particle, and its way from there", particle.show] };
    for (const [id, [title, show]] of Object.entries(buttons)) {
      const button = Object.assign(document.createElement("button"), { type: "button", id, textContent: id, title });
      button.setAttribute("aria-pressed", "false");
      button.onclick = () => { // one of them at a time
        const open = button.getAttribute("aria-pressed") === "false";
        for (const [other, [, turn]] of Object.entries(buttons)) {
          const pressed = other === id && open;
          if (String(pressed) !== document.getElementById(other).getAttribute("aria-pressed")) turn(pressed);
          document.getElementById(other).setAttribute("aria-pressed", String(pressed));
        }
        follow(chosen());
      };
      document.forms[0].elements.mixture.closest(".control").append(button);
    }
    document.querySelector(".keys").before("Show ", ...layers.boxes());
    new ResizeObserver(() => setTimeout(() => follow(chosen()), 50)).observe(figure());
  }

  return { knows, draws, value: (name, texts) => (name === "mixture" ? value(texts.at(-1)) : null), made, preview, follow, begin };
};
