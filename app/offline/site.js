// A page without a server: controls, the figures that were drawn ahead of time, and the state in the address behind #.
// A page whose figures are computed here has window.toydiffLive (live-*.js); all else comes from files, one a state.
"use strict";
const toydiff = (window.toydiff = (() => {
  const $ = (selector) => document.querySelector(selector), root = document.documentElement;
  const kept = new Map(), waiting = new Map(); // states' files: what they held, and who waits for them
  let page, live, state, shown, writes, settles, turn = 0;

  // ---- files

  const GAP = -32768; // see packing.py, which writes what is read here
  const letters = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  async function unpacked(packed) {
    const zipped = new Blob([Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0))]).stream();
    const bytes = new Uint8Array(await new Response(zipped.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
    const text = bytes.indexOf(0), low = bytes.subarray(text + 1), high = low.subarray(low.length / 2);
    const array = ([from, count, step]) => {
      const out = new Float32Array(count);
      for (let i = 0, sum = 0; i < count; i++) {
        const number = ((low[from + i] | (high[from + i] << 8)) << 16) >> 16;
        out[i] = number === GAP ? NaN : step * (sum += number);
      }
      return { dtype: "f4", bdata: btoa(letters(new Uint8Array(out.buffer))) };
    };
    return JSON.parse(new TextDecoder().decode(bytes.subarray(0, text)), (key, value) => {
      if (value?.pixels) value.pixels = low.slice(value.pixels[0], value.pixels[0] + value.pixels[1]);
      return value?.packed ? { shape: value.shape, ...array(value.packed) } : value;
    });
  }

  function painted({ pixels, width, times: [down, across], colors }) { // a picture's address
    const size = { width: width * across, height: (pixels.length / width) * down };
    const pen = Object.assign(document.createElement("canvas"), size).getContext("2d"), image = pen.createImageData(size.width, size.height);
    const table = new Uint32Array(colors.match(/.{6}/g).map((color) => Number(`0xff${color.match(/../g).reverse().join("")}`)));
    const out = new Uint32Array(image.data.buffer); // a number a pixel: alpha, blue, green, red
    for (let y = 0, i = 0; y < size.height; y++) {
      const row = Math.floor(y / down) * width;
      for (let x = 0; x < size.width; x++) out[i++] = table[pixels[row + Math.floor(x / across)]];
    }
    pen.putImageData(image, 0, 0);
    return pen.canvas.toDataURL();
  }

  function load(k) { // a script, since a page in a folder may fetch nothing
    if (!kept.has(k)) {
      kept.set(k, new Promise((done, failed) => {
        const script = document.createElement("script");
        script.src = `toydiff/${page.id}/${k}.js`;
        script.onerror = () => (kept.delete(k), failed(new Error(`the file ${script.src} is missing`)));
        waiting.set(k, done);
        document.head.append(script);
      }));
    }
    return kept.get(k);
  }

  const take = (k, packed) => waiting.get(k)(unpacked(packed));

  // ---- states: of each control the number of its value; a value that the reader made has the number of a new one

  const count = (one, other) => one.reduce((sum, value, k) => sum + (value === other[k]), 0);
  const same = (one, other) => count(one, other) === one.length;
  const start = () => page.controls.map((control) => control.default);
  const textOf = (value) => value.texts.join(", ");

  // The drawn state that has all that is asked for of `fixed`, numbers of controls, and most of the rest.
  function nearest(wanted, fixed) {
    if (live?.draws(chosen(wanted))) return wanted;
    const fits = page.states.filter((one) => fixed.every((k) => one[k] === wanted[k]));
    return fits.reduce((best, one) => (best && count(best, wanted) >= count(one, wanted) ? best : one), null);
  }

  const chosen = (of = state) => Object.fromEntries(page.controls.map((control, k) => [control.name, textOf(control.values[of[k]])]));

  function valueOf(control, texts) { // its number, -1 for what is not known here
    if (control.words?.some((word) => texts.includes(word))) texts = [...control.words, ...texts].filter((text, k, list) => texts.includes(text) && list.indexOf(text) === k);
    const k = control.values.findIndex((value) => !value.own && textOf(value) === texts.join(", "));
    if (k >= 0) return k;
    const made = live?.value(control.name, texts), own = control.values.findIndex((value) => value.own);
    if (made && own >= 0) control.values[own] = made; // the reader's own: there is one at a time
    return made ? (own >= 0 ? own : control.values.push(made) - 1) : -1;
  }

  // ---- the address

  function read() {
    const words = new URLSearchParams(location.search), said = [], given = [], wanted = start();
    for (const [name, text] of new URLSearchParams(location.hash.slice(1))) words.append(name, text);
    for (const name of new Set(words.keys())) {
      const k = page.controls.findIndex((control) => control.name === name), control = page.controls[k];
      if (name === "embed") continue;
      const value = control ? valueOf(control, words.getAll(name)) : -1;
      if (!control) said.push(`the link has ${name}, which this page has not`);
      else if (value < 0) said.push(`${control.label} ${words.getAll(name).join(", ").slice(0, 60)} is not on this site; the app has it`);
      else (wanted[k] = value), given.push(k);
    }
    let found = nearest(wanted, given);
    if (!found) found = nearest(wanted, given.slice(0, 1)), said.push("this site has not all of the link's settings together; the app has");
    notice(said);
    return found;
  }

  function words() {
    const out = new URLSearchParams();
    page.controls.forEach((control, k) => {
      if (state[k] !== control.default) for (const text of control.values[state[k]].texts) out.append(control.name, text);
    });
    return out.toString();
  }

  function write() { // a little later: browsers refuse hundreds of changes in a row
    clearTimeout(writes);
    writes = setTimeout(() => {
      const hash = words(), plain = location.pathname.split("/").pop() + location.search;
      if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : plain);
    }, 100);
  }

  // ---- controls

  function notice(lines) {
    $(".notice").hidden = !lines.length;
    $(".notice").textContent = lines.map((line) => `${line[0].toUpperCase()}${line.slice(1)}.`).join(" ");
  }

  function choose(k, value) {
    const wanted = state.with(k, value), found = nearest(wanted, [k]);
    if (!found) return notice([`${page.controls[k].label} ${textOf(page.controls[k].values[value])} is not on this site; the app has it`]);
    const moved = page.controls.filter((control, j) => j !== k && found[j] !== state[j] && !resting(found).has(control.name));
    notice(moved.length ? [`not every combination is on this site, so ${moved.map((one) => one.label).join(", ")} went back; the app has all`] : []);
    state = found;
    show();
  }

  function resting(of) { // controls without effect in a state
    const now = chosen(of);
    return new Set(page.idle.flatMap(([name, value, names]) => (now[name] === value ? names : [])));
  }

  function fill() {
    const idle = resting(state);
    page.controls.forEach((control, k) => {
      const several = $(`[data-name="${control.name}"]`), field = several ? null : document.forms[0].elements[control.name];
      (several ?? field.closest(".control")).hidden = idle.has(control.name);
      if (several) return tick(several, control, k);
      if (field.type === "range") {
        Object.assign(field, { min: 0, max: control.values.length - 1, value: state[k], disabled: control.values.length < 2 });
        field.setAttribute("aria-valuetext", textOf(control.values[state[k]]));
        field.nextElementSibling.value = textOf(control.values[state[k]]);
        field.oninput = () => choose(k, Number(field.value));
        return;
      }
      if (field.length !== control.values.length) {
        field.replaceChildren(...control.values.map((value, j) => new Option(value.label ?? textOf(value), j)));
      }
      field.value = state[k];
      field.title = field.selectedOptions[0].textContent; // of long words a narrow box shows the beginning
      field.onchange = () => choose(k, Number(field.value));
    });
    $("pre").textContent = page.code.replace("{call}", page.controls.map((control, k) => `${control.name}=${control.values[state[k]].code}`).join(", "));
  }

  function tick(box, control, k) { // several words, chosen freely
    const { texts } = control.values[state[k]], card = box.querySelector(".card");
    Object.assign(box.querySelector("summary"), { textContent: texts.join(", "), title: texts.join(", ") });
    if (!card.childElementCount) {
      for (const word of control.words.filter((one) => live.knows(control.name, one))) {
        const label = document.createElement("label"), field = Object.assign(document.createElement("input"), { type: "checkbox", value: word });
        field.onchange = () => {
          const chosen = [...card.querySelectorAll("input:checked")].map((one) => one.value);
          if (chosen.length) choose(k, valueOf(control, chosen));
          else field.checked = true; // one at least
        };
        label.append(field, word);
        card.append(label);
      }
    }
    for (const field of card.querySelectorAll("input")) field.checked = texts.includes(field.value);
  }

  // ---- the figure

  const isDark = () => root.dataset.theme === "dark";

  function inTheme({ figure, dark }) {
    const out = structuredClone(figure);
    for (const [path, value] of isDark() ? dark : []) {
      let part = out;
      for (const key of path.slice(0, -1)) part = part[key];
      part[path.at(-1)] = value;
    }
    for (const image of out.layout.images ?? []) if (image.source.pixels) image.source = painted(image.source);
    return out;
  }

  const SETTLED = 150; // milliseconds without a change after which what was drawn at once becomes a figure
  async function show() {
    const mine = ++turn;
    clearTimeout(settles);
    fill();
    write();
    try {
      const own = live?.draws(chosen()), made = await load(own ? 0 : page.states.findIndex((one) => same(one, state)));
      if (mine !== turn) return;
      if (!own) return draw(made);
      const computed = live.made(chosen(), inTheme(made), isDark());
      if (!shown || !live.preview?.(computed, $(".figure"))) return draw(computed);
      $(".said").innerHTML = computed.words;
      settles = setTimeout(() => mine === turn && draw(computed), SETTLED);
    } catch (error) {
      if (mine === turn) draw({ error: error.message });
    }
  }

  const NARROW = matchMedia("(max-width: 820px)"); // there an axis' name is no larger than other letters
  function narrowed(figure) {
    for (const [key, axis] of Object.entries(figure.layout)) {
      if (NARROW.matches && /^[xy]axis/.test(key) && axis.title) axis.title = { ...axis.title, font: { size: figure.layout.font.size } };
    }
    return figure;
  }

  const ROUNDS = 100; // of what is played again and again
  function paced([frames, how]) { // the arguments of play, as the reader has chosen speed and rounds
    const once = [...new Set(frames)], { frame } = how;
    const all = $("#loop").checked ? Array(ROUNDS).fill(once).flat() : frames;
    return [all, { ...how, frame: { ...frame, duration: frame.duration / Number($("#speed").value) } }];
  }

  function pace() { // another one, also of what plays
    const place = $(".figure"), [{ buttons: [button] }] = shown.figure.layout.updatemenus, [frames, how] = paced(button.args);
    window.Plotly.relayout(place, { "updatemenus[0].buttons[0].args": [frames, how] });
    const next = place.layout.sliders[0].active + 1;
    if (place._transitionData._animationRaf) window.Plotly.animate(place, frames.slice(next < frames.length ? next : 0), how);
  }

  function draw(made) {
    shown = made;
    $(".said").innerHTML = made.words ?? "";
    $(".figure").hidden = $(".st-key-files").hidden = Boolean(made.error);
    if (made.error) return notice([`this figure needs the app: ${made.error}`]);
    const figure = narrowed(inTheme(made));
    const [menu] = figure.layout.updatemenus ?? [];
    for (const field of document.querySelectorAll(".pace")) field.hidden = !menu;
    if (menu) menu.buttons[0].args = paced(menu.buttons[0].args);
    const hash = words(), address = `${page.id}${hash && `?${decodeURIComponent(hash)}`}`;
    const has = { keys: true, clicks: false, file: `toydiff-${page.id}`, title: page.title, madeOf: "", address };
    const data = { figure, has, config: page.config, alt: made.alt, url: "toydiff/plotly-cartesian.min.js" };
    window.toydiffChart({
      data: new TextEncoder().encode(JSON.stringify(data)),
      parentElement: $(".stBidiComponent"),
      setStateValue() {},
      setTriggerValue() {},
    });
    if (live?.follow) requestAnimationFrame(() => live.follow(chosen()));
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(shown.rows, null, 1)], { type: "application/json" }));
    link.download = `toydiff-${page.id}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // ---- the page

  function keepKnown() { // of the values that the app has, those that can be computed here
    page.controls.forEach((control, k) => {
      const { values } = control, kept = values.filter((value, j) => live.knows(control.name, textOf(value)) || page.states.some((one) => one[k] === j));
      const number = (j) => kept.indexOf(values[j]);
      for (const one of page.states) one[k] = number(one[k]);
      Object.assign(control, { values: kept, default: number(control.default) });
    });
  }

  function begin(about) {
    page = about;
    live = window.toydiffLive?.(page, (name, text) => {
      const k = page.controls.findIndex((control) => control.name === name);
      choose(k, valueOf(page.controls[k], [text]));
    });
    if (live) keepKnown();
    document.forms[0].onsubmit = () => false;
    $(".notice").onclick = () => notice([]);
    addEventListener("hashchange", () => ((state = read()), show()));
    addEventListener("toydiff-theme", show);
    $("#reset").onclick = (event) => (event.preventDefault(), (state = start()), notice([]), show());
    $("#png").onclick = () => $(".js-plotly-plot")?.save();
    $("#json").onclick = download;
    $("#speed").onchange = $("#loop").onchange = pace;
    $("#copy").onclick = () => navigator.clipboard?.writeText($("pre").textContent);
    state = read();
    show();
    live?.begin?.(chosen);
  }

  addEventListener("DOMContentLoaded", () => {
    window.toydiffFrameOf({ parentElement: $(".st-key-drawer") });
    $("#theme").onclick = () => (window.toydiffTheme(), dispatchEvent(new Event("toydiff-theme")));
    addEventListener("click", (event) => { // a click beside an open list closes it
      for (const box of document.querySelectorAll("header > details[open], .several[open]")) if (!box.contains(event.target)) box.open = false;
    });
  });

  return { page: begin, take };
})());
