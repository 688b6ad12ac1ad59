// Draws plotly figures when they come into view. plotly.min.js is asked for once, and only by pages that have a figure.
(() => {
  const here = document.currentScript.src;
  const options = { displaylogo: false, responsive: false, typesetMath: false };
  let plotly = null;

  function loaded() {
    plotly ??= new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = new URL("plotly.min.js", here).href;
      script.onload = resolve;
      document.head.append(script);
    });
    return plotly;
  }

  async function draw(place) {
    const { data, layout } = JSON.parse(place.querySelector("script").textContent);
    await loaded();
    await Plotly.newPlot(place, data, layout, options);
    place.dataset.drawn = "true";
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px" },
  );
  const figures = document.querySelectorAll(".figure[role=img]");
  figures.forEach((place) => seen.observe(place));
  addEventListener("beforeprint", () => figures.forEach((place) => place.dataset.drawn || draw(place)));
})();
