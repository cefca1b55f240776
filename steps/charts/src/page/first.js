
"use strict";
(() => {
  const root = document.documentElement;
  const errors = [];
  const note = (text) => {
    errors.push(String(text));
    root.dataset.errors = errors.join("\n");
  };
  addEventListener("error", (event) => note(event.message || "a resource failed to load"), true);
  addEventListener("unhandledrejection", (event) => note(event.reason));
  addEventListener("securitypolicyviolation", (event) => note("blocked " + event.blockedURI + " (" + event.violatedDirective + ")"));
  // The hash is for sharing a page in one theme; it wins over what was chosen before.
  const asked = { "#light": "light", "#dark": "dark" }[location.hash];
  let chosen = null;
  try {
    chosen = localStorage.getItem("report-theme");
  } catch {
    // Storage may be forbidden; the theme then follows the system.
  }
  const theme = asked || chosen;
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.dataset.chartsDrawn = "0";
  root.dataset.pointsDrawn = "0";
})();
