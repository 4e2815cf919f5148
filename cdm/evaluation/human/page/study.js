// Leads a person through a study, from the consent to the thanks.
'use strict';
(async function () {
  const AHEAD = 3;  // trials whose pictures are loaded beforehand
  const $ = (id) => document.getElementById(id);
  const say = (text) => { if ($('status').textContent !== text) $('status').textContent = text; };
  const began = performance.now();
  const loaded = new Map();  // {index: promise of decoded pictures}

  function showSection(id) {
    for (const name of ['begin', 'trial', 'end', 'problem']) {
      $(name).hidden = name !== id;
    }
  }

  function fail(error) {
    $('why').textContent = error.message || String(error);
    showSection('problem');
    say('');
  }

  // The access token of the address is in a cookie by now.
  if (new URLSearchParams(location.search).has('token')) {
    history.replaceState(null, '', location.pathname);
  }

  const store = window.cdmStore.open(say, fail);
  let study;

  function choices() {
    if (study.ratings.length) {
      return study.ratings.map((word, i) => (
        {response: i + 1, text: `${i + 1} ${word}`, keys: [String(i + 1)]}));
    }
    return [
      {response: 0, text: 'Left', keys: ['f', 'ArrowLeft'], label: 'F'},
      {response: 1, text: 'Right', keys: ['j', 'ArrowRight'], label: 'J'},
    ];
  }

  function click(button) {
    return new Promise((done) => {
      button.addEventListener('click', done, {once: true});
    });
  }

  function introduce() {
    document.title = study.title;
    $('title').textContent = study.title;
    $('asked').textContent = study.question;
    $('question').textContent = study.question;
    const one = study.ratings.length > 0;
    $('course').textContent = `You will see ${one ? 'pictures' :
      'pairs of pictures'}, each for ${study.seconds} seconds. ` +
      'You may answer while you see them or afterwards. ' +
      'The first few are for practice.';
    $('keys').textContent = one ?
      'Answer with the buttons, or with the keys 1 to 5.' :
      'Answer with the buttons, or with the keys F for left and J for right, ' +
      'or the arrow keys.';
    for (const text of study.information) {
      const paragraph = document.createElement('p');
      paragraph.textContent = text;
      $('information').append(paragraph);
    }
    if (store.begun()) $('agree').textContent = 'Go on where you stopped';
    const answers = choices();
    $('answers').classList.toggle('five', answers.length === 5);
    for (const choice of answers) {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = choice.text;
      button.dataset.response = choice.response;
      button.disabled = true;
      if (choice.label) {
        const key = document.createElement('kbd');
        key.textContent = choice.label;
        key.setAttribute('aria-hidden', 'true');
        button.append(key);
      }
      button.setAttribute('aria-keyshortcuts', choice.keys.join(' '));
      $('answers').append(button);
    }
  }

  // Waits for an answer by button or key. Returns {promise, stop, enable}.
  function listen(answers) {
    const buttons = [...$('answers').querySelectorAll('button')];
    let finish;
    const promise = new Promise((done) => { finish = done; });
    function take(response, time) {
      stop();
      for (const button of buttons) {
        const own = Number(button.dataset.response) === response;
        button.setAttribute('aria-pressed', String(own));
      }
      finish({response, time});
    }
    function onClick(event) {
      take(Number(event.currentTarget.dataset.response), event.timeStamp);
    }
    function onKey(event) {
      if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const choice = answers.find((one) => one.keys.includes(key));
      if (!choice) return;
      event.preventDefault();
      take(choice.response, event.timeStamp);
    }
    function stop() {
      document.removeEventListener('keydown', onKey);
      for (const button of buttons) {
        button.disabled = true;
        button.removeEventListener('click', onClick);
      }
    }
    function enable() {
      for (const button of buttons) {
        button.removeAttribute('aria-pressed');
        button.disabled = false;
        button.addEventListener('click', onClick);
      }
      document.addEventListener('keydown', onKey);
    }
    return {promise, enable};
  }

  function preload(trials, from) {
    for (let i = from; i < Math.min(from + AHEAD, trials.length); i++) {
      if (!loaded.has(i)) loaded.set(i, window.cdmShown.load(trials[i]));
    }
  }

  // Waits until the pictures fit, and lays them out. Returns the zoom.
  async function fitted(trial, images) {
    for (;;) {
      const zoom = window.cdmShown.place(trial, images, $('stage'));
      if (zoom) return zoom;
      say('The pictures do not fit into this window. Make it larger, turn the ' +
        'screen, or open this page on a larger one.');
      await window.cdmShown.pause(300);
    }
  }

  // One trial. Returns the row that is kept.
  async function run(trial, index) {
    $('answers').hidden = false;
    $('feedback').hidden = true;
    const late = setTimeout(() => say('Loading the pictures …'), 400);
    const images = await loaded.get(index);
    clearTimeout(late);
    const zoom = await fitted(trial, images);
    say('');
    for (const button of $('answers').querySelectorAll('button')) {
      button.removeAttribute('aria-pressed');
    }
    const answer = listen(choices());
    let start = 0;
    const measured = await window.cdmShown.show(
        $('stage'), study.seconds, (time) => { start = time; answer.enable(); });
    const given = await answer.promise;
    loaded.delete(index);
    return {
      trial_index: index, trial_type: trial.trial_type,
      stimulus: trial.stimulus, response: given.response,
      rt: Math.max(0, given.time - start),
      time_elapsed: performance.now() - began, ...measured, zoom,
      device_pixel_ratio: window.devicePixelRatio || 1,
      viewport: [window.innerWidth, window.innerHeight],
    };
  }

  async function feedback(text) {
    $('answers').hidden = true;
    $('said').textContent = text;
    $('feedback').hidden = false;
    $('next').focus();
    await click($('next'));
    $('feedback').hidden = true;
    $('answers').hidden = false;
    $('question').focus();
  }

  function told(trial, row) {
    if (trial.right === undefined) return 'Thank you. There is no right answer.';
    const side = ['left', 'right'][trial.right];
    return row.response === trial.right ?
      `Yes: the ${side} one is sharp, the other one blurred.` :
      `No: the ${side} one is sharp, the other one blurred.`;
  }

  async function judge(session) {
    const {trials, answered} = session;
    const practice = trials.filter((trial) => trial.practice).length;
    $('progress').max = trials.length;
    showSection('trial');
    $('question').focus();
    for (let i = 0; i < trials.length; i++) {
      if (answered.has(i)) continue;
      preload(trials, i);
      $('progress').value = i;
      $('place').textContent = trials[i].practice ?
        `Practice ${i + 1} of ${practice}` :
        `${i + 1 - practice} of ${trials.length - practice}`;
      const row = await run(trials[i], i);
      store.keep({
        study: study.study, person: session.person, list: session.list, ...row});
      if (trials[i].practice) {
        const last = i + 1 === practice ?
          ` The practice is over; ${trials.length - practice} trials follow.` : '';
        await feedback(told(trials[i], row) + last);
      }
    }
  }

  async function thank(session) {
    say('Saving your answers …');
    await store.settled();
    say('');
    $('code').textContent = session.code;
    $('kept').textContent = store.file ?
      'Save the file with your answers, and send it to the person who asked you.' :
      'All your answers are kept. You may close this page.';
    if (store.file) {
      const file = store.file();
      $('file').hidden = false;
      $('download').download = file.name;
      $('download').href = URL.createObjectURL(file.blob);
    }
    showSection('end');
    $('thanks').focus();
    await click($('another'));
    store.forget();
    location.reload();
  }

  try {
    study = await store.texts();
    introduce();
    showSection('begin');
    await click($('agree'));
    const session = await store.open();
    await judge(session);
    await thank(session);
  } catch (error) {
    fail(error);
  }
})();
