// A script of its own in the page's head: it sets the chosen theme before anything is painted.

try {
  const chosen = JSON.parse(localStorage.getItem("qna.theme") ?? "null");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be closed to us; the system's preference holds then.
}
