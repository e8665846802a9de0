// Handles on the first plane of a figure, one where each mode of a mixture is: a mouse, a finger or arrow keys move it.
// figure(): it, as it is drawn; reach: how far from 0 a mode may go; moved(k, [x, y], held): mode k is there now, still
// held or let go.
"use strict";
window.toydiffModes = (figure, reach, moved) => {
  const board = Object.assign(document.createElement("div"), { className: "board modes", hidden: true });
  let places = [];

  function arrange(rows) { // x, y and more of each mode
    const { xaxis, yaxis } = figure()._fullLayout;
    places = rows.map(([x, y]) => [x, y]);
    Object.assign(board.style, { left: `${xaxis._offset}px`, top: `${yaxis._offset}px`, width: `${xaxis._length}px`, height: `${yaxis._length}px` });
    while (board.children.length > rows.length) board.lastChild.remove();
    while (board.children.length < rows.length) board.append(handle());
    places.forEach(([x, y], k) => {
      Object.assign(board.children[k].style, { left: `${xaxis.l2p(x)}px`, top: `${yaxis.l2p(y)}px` });
      board.children[k].setAttribute("aria-label", `mode ${k + 1} at ${x}, ${y}: arrows move it`);
    });
  }

  const near = (place) => place.map((v) => Math.round(Math.min(Math.max(v, -reach), reach) * 100) / 100);
  const at = (event) => {
    const box = board.getBoundingClientRect(), { xaxis, yaxis } = figure()._fullLayout;
    return near([xaxis.p2l(event.clientX - box.left), yaxis.p2l(event.clientY - box.top)]);
  };
  const index = (dot) => [...board.children].indexOf(dot);

  function handle() {
    const dot = Object.assign(document.createElement("button"), { type: "button", className: "mode" });
    let last;
    dot.onpointerdown = (event) => {
      dot.setPointerCapture(event.pointerId);
      dot.classList.add("dragged");
      last = undefined;
    };
    dot.onpointermove = (event) => dot.matches(".dragged") && moved(index(dot), (last = at(event)), true);
    dot.onpointerup = dot.onpointercancel = dot.onlostpointercapture = () => {
      const [place, held] = [last, dot.matches(".dragged")];
      dot.classList.remove("dragged");
      if (held && place) moved(index(dot), place, false);
    };
    dot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      moved(index(dot), near(places[index(dot)].map((v, j) => v + step[j])), false);
    });
    return dot;
  }

  return { board, arrange, at, index };
};
