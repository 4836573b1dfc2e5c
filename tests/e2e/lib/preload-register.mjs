// For `node --import`: a customization hook that brings the source of every CommonJS module by itself.

import { register } from 'node:module';

register('./preload-hooks.mjs', import.meta.url);
