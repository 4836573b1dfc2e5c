// Debian's Chromium without a window, and the chat page in it.

import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { until } from './wait.mjs';

/** $CHROMIUM, or what Debian installs. */
const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** It does nothing but what the test asks for, and goes nowhere but to this machine. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-proxy-server',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export class Browser {
  /** With a new, empty profile in the folder of the test. */
  static async start(place) {
    const options = { executablePath: EXECUTABLE, headless: true, args: FLAGS, timeout: 60_000, viewport: { width: 1180, height: 940 } };
    const browser = new Browser(await chromium.launchPersistentContext(join(place.folder, 'profile'), options));
    place.atEnd(() => browser.stop());
    return browser;
  }

  constructor(context) {
    this.context = context;
    /** What the pages complained of in their console, but for connections that were lost. */
    this.complaints = [];
  }

  /** A new tab with this address. */
  async open(url) {
    const page = await this.context.newPage();
    page.on('pageerror', (error) => this.complaints.push(String(error)));
    page.on('console', (message) => {
      const expected = /WebSocket connection to|net::ERR_/.test(message.text());
      if (message.type() === 'error' && !expected) this.complaints.push(message.text());
    });
    await page.goto(url);
    return new Page(page);
  }

  stop() {
    return this.context.close();
  }
}

/** The chat page in one tab. */
class Page {
  constructor(page) {
    this.page = page;
  }

  /** Waits until the element is there and its text matches. */
  reads(selector, pattern) {
    return until(`${pattern} in ${selector}`, async () => {
      const text = (await this.page.locator(selector).allInnerTexts()).join('\n');
      return pattern.test(text) || Promise.reject(new Error(text));
    });
  }

  /** What it shows of its session once it is connected and upgraded: `{ slot, pid, sid }`. */
  async connected() {
    await this.reads('#state', /connected · WebSocket/);
    await this.reads('#slot', /^\d+$/);
    const text = (id) => this.page.locator(id).innerText();
    const sid = await text('#sid');
    return { slot: Number(await text('#slot')), pid: Number(await text('#pid')), sid };
  }

  /** Goes to a room, where there are then so many. */
  async joins(room, members) {
    await this.page.fill('#room-input', room);
    await this.page.click('#join-form button');
    await this.reads('#room-name', new RegExp(`^${room}$`));
    await this.reads('#members', new RegExp(`^${members} member`));
  }

  async says(text) {
    await this.page.fill('#message-input', text);
    await this.page.click('#send');
  }

  picture(path) {
    return this.page.screenshot({ path, animations: 'disabled' });
  }
}
