// What all pages share in the browser: F shows title, figure and controls only, PageUp and PageDown (a clicker's keys)
// open the pages before and after, and on a phone a menu closes over the page that was chosen, and controls open.
const TYPED = "input:not([type=range]), textarea, select, [contenteditable=true]";
const NARROW = matchMedia("(max-width: 820px)");
const root = document.documentElement;

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const box = event.target.closest?.("[role=combobox], [data-baseweb=select] input"), open = box?.getAttribute("aria-expanded") === "true";
  const beside = { PageUp: ".st-key-before a", PageDown: ".st-key-after a" }[event.key];
  if (beside && !open && (box || !event.target.closest?.(`${TYPED}, [role=slider]`))) {
    event.preventDefault();
    document.querySelector(beside)?.click();
  }
  if (event.key.toLowerCase() === "f" && !event.target.closest?.(TYPED)) root.classList.toggle("presenter");
  if (event.key === "Escape") root.classList.remove("presenter");
}

function clicked(event) {
  if (!NARROW.matches || !event.target.closest?.(".stSidebar a")) return;
  document.querySelector("[data-testid=stSidebarCollapseButton] button")?.click();
}

export default function ({ parentElement }) {
  const drawer = parentElement.querySelector("button");
  drawer.onclick = () => drawer.setAttribute("aria-expanded", root.classList.toggle("drawer"));
  drawer.setAttribute("aria-expanded", root.classList.contains("drawer"));
  if (window.toydiffFrame) return;
  window.toydiffFrame = true;
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", clicked);
}
