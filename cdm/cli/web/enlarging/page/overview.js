// Shows the whole picture, small, with a frame around the part to look at.
'use strict';
window.cdmOverview = (function () {
  const $ = (id) => document.getElementById(id);
  const SHARE = 8;  // an arrow key moves the frame by this part of its side
  let picture = null;  // {height, width}
  let part = null;  // {top, left, height, width}, pixels of the picture
  let onPart = () => {};

  function arrange() {
    const share = (value, of) => `${100 * value / of}%`;
    const style = $('frame').style;
    style.left = share(part.left, picture.width);
    style.top = share(part.top, picture.height);
    style.width = share(part.width, picture.width);
    style.height = share(part.height, picture.height);
  }

  function move(top, left) {
    const inside = (at, length, whole) =>
      Math.round(Math.min(whole - length, Math.max(0, at)));
    part = {
      ...part, top: inside(top, part.height, picture.height),
      left: inside(left, part.width, picture.width),
    };
    arrange();
  }

  // Gives the part another size, around its middle.
  function resize(side) {
    const [height, width] = [Math.min(side, picture.height), Math.min(side, picture.width)];
    const [y, x] = [part.top + part.height / 2, part.left + part.width / 2];
    part = {...part, height, width};
    move(y - height / 2, x - width / 2);
  }

  function listen(call) {
    onPart = call;
    let held = null;  // where in the frame the pointer holds it
    const at = (event) => {
      const edge = $('overview').getBoundingClientRect();
      return [(event.clientY - edge.top) / edge.height * picture.height,
        (event.clientX - edge.left) / edge.width * picture.width];
    };
    const box = $('whole-picture');
    box.addEventListener('pointerdown', (event) => {
      if (!picture) return;
      event.preventDefault();
      $('frame').focus();
      box.setPointerCapture(event.pointerId);
      const [y, x] = at(event);
      if (event.target !== $('frame')) move(y - part.height / 2, x - part.width / 2);
      held = [y - part.top, x - part.left];
    });
    box.addEventListener('pointermove', (event) => {
      if (!held) return;
      const [y, x] = at(event);
      move(y - held[0], x - held[1]);
    });
    box.addEventListener('pointerup', () => {
      if (held) onPart(part);
      held = null;
    });
    box.addEventListener('pointercancel', () => { held = null; });
    $('frame').addEventListener('keydown', (event) => {
      const moves = {
        ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      };
      if (event.key === 'Enter' || event.key === ' ') {
        onPart(part);
      } else if (moves[event.key]) {
        const [y, x] = moves[event.key];
        const step = (side) => Math.max(1, Math.round(side / SHARE));
        move(part.top + y * step(part.height), part.left + x * step(part.width));
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  function set(given, first) {
    picture = given;
    part = {...first};
    arrange();
  }

  return {listen, set, resize, part: () => part};
})();
