
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const read = (plot) => JSON.parse(document.getElementById(plot.id + "-data").textContent);

  // Charts name their colours by role; this gives them those of the theme in force.
  const inks = () => {
    const style = getComputedStyle(root);
    return (token) => {
      const [, role, mode, share = "1"] = token.match(isToken);
      const channels = (name) => {
        const hex = style.getPropertyValue("--" + name).trim();
        return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
      };
      const own = channels(role);
      if (mode !== "~") return "rgba(" + [...own, share].join(",") + ")";
      const ground = channels("surface");
      return "rgb(" + own.map((v, i) => Math.round(v * share + ground[i] * (1 - share))).join(",") + ")";
    };
  };
  // Role, then `/` and an opacity, or `~` and a share mixed into the surface.
  const isToken = /^@([a-z]+[0-9]*)(?:([/~])([0-9.]+))?$/;
  const colourKeys = /color$/;
  // A colour may be a list, one for each mark.
  const dye = (node, ink, areColours = false) => {
    for (const key of Object.keys(node)) {
      const value = node[key];
      const isColour = areColours || colourKeys.test(key);
      if (typeof value === "string") {
        if (isColour && isToken.test(value)) node[key] = ink(value);
      } else if (value && typeof value === "object") {
        dye(value, ink, isColour && Array.isArray(value));
      }
    }
    return node;
  };

  // On a touch screen a drag is a scroll, never a zoom, and tools that cannot wait for a
  // pointer to come near would only cover the chart.
  const touch = matchMedia("(pointer: coarse), (hover: none)").matches;
  const described = (plot, ink) => {
    const figure = dye(read(plot), ink);
    if (touch) {
      figure.layout.dragmode = false;
      figure.config.displayModeBar = false;
    }
    return figure;
  };

  const count = () => {
    const drawn = plots.filter((plot) => plot.querySelector(".main-svg"));
    root.dataset.chartsDrawn = drawn.length;
    root.dataset.pointsDrawn = document.querySelectorAll(".plot .points .point").length;
    const requests = performance.getEntriesByType("resource").filter((entry) => /^http/.test(entry.name));
    root.dataset.requests = requests.length;
  };

  // All are asked for at once: what prints the page does not wait for promises.
  const draw = () => {
    const ink = inks();
    return Promise.all(plots.map((plot) => Plotly.react(plot, described(plot, ink)).then(count)));
  };

  // Widths change for more reasons than a resized window: a scrollbar, a phone turned, print.
  const resizer = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const drawn = target.querySelector(".main-svg");
      const width = drawn ? Number(drawn.getAttribute("width")) : 0;
      if (width && contentRect.width && Math.abs(width - contentRect.width) >= 1) Plotly.Plots.resize(target);
    }
  });
  for (const plot of plots) resizer.observe(plot);

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("report-theme", root.dataset.theme);
    } catch {
      // Not remembered then.
    }
    draw();
  });
  system.addEventListener("change", () => { if (!root.dataset.theme) draw(); });

  // Paper is white whatever the screen is, and narrower.
  let before = null;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme || "";
    root.dataset.theme = "light";
    draw();
    for (const plot of plots) Plotly.Plots.resize(plot);
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    draw();
  });

  const sortBy = (head) => {
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.children[column];
      if (cell.dataset.sort === undefined) return cell.textContent;
      return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      // Subtracting would turn two infinities into NaN.
      const order = typeof x === "number" && typeof y === "number"
        ? (x > y) - (x < y)
        : String(x).localeCompare(String(y), undefined, { numeric: true });
      return rising ? order : -order;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  };
  for (const button of document.querySelectorAll("th > button")) {
    button.addEventListener("click", () => sortBy(button.parentNode));
  }

  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const link = links.get(entry.target.id);
      if (link && entry.isIntersecting) {
        for (const other of links.values()) other.removeAttribute("aria-current");
        link.setAttribute("aria-current", "true");
      }
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

  count();
  draw();
})();
