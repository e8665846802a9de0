// Before anything is seen: light or dark as the reader chose, or as the system says; and `?embed` leaves out what frames a page.
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("toydiff-theme"); } catch { return null; } };
  const apply = () => (root.dataset.theme = kept() ?? (system.matches ? "dark" : "light"));
  window.toydiffTheme = () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("toydiff-theme", next); } catch { /* no storage here: the choice holds on this page */ }
    root.dataset.theme = next;
  };
  system.addEventListener("change", () => { apply(); dispatchEvent(new Event("toydiff-theme")); });
  if (new URLSearchParams(location.search).has("embed")) root.classList.add("embed");
  apply();
})();
