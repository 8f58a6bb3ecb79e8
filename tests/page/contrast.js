// Finds texts whose contrast to their background is below 4.5:1 (WCAG 2.2, 1.4.3).
// This is the body of a function that returns one line for each text found.

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function channels(color) {
  pixel.clearRect(0, 0, 1, 1);
  pixel.fillStyle = color;
  pixel.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
  return { rgb: [red, green, blue], alpha: alpha / 255 };
}

function over({ rgb, alpha }, below) {
  return rgb.map((channel, at) => channel * alpha + below[at] * (1 - alpha));
}

function backdrop(element) {
  if (!element) return [255, 255, 255];
  return over(channels(getComputedStyle(element).backgroundColor), backdrop(element.parentElement));
}

function luminance(rgb) {
  const [red, green, blue] = rgb.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(element, style) {
  const below = backdrop(element);
  const [one, other] = [luminance(over(channels(style.color), below)), luminance(below)];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}

const poor = [];
let seen = 0;
for (const element of document.querySelectorAll("body *")) {
  const has = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== "");
  const input = element.matches("input");
  if (!(has || input) || element.closest(".visually-hidden, noscript") || !element.checkVisibility()) continue;
  seen += 1;
  const styles = [getComputedStyle(element), ...(input ? [getComputedStyle(element, "::placeholder")] : [])];
  for (const style of styles) {
    const found = contrast(element, style);
    if (found < 4.5)
      poor.push(`${found.toFixed(2)}: ${element.tagName} ${element.className}: ${element.textContent.slice(0, 40)}`);
  }
}
return seen > 10 ? poor : [`only ${seen} texts found`];
