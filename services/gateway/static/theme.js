// Runs before the first paint, so that a remembered theme does not flash. The rest is in app.js.
(() => {
  try {
    const theme = localStorage.getItem("baton.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // No storage: the system's theme applies.
  }
})();
