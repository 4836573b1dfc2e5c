// preload-app.cjs, where ECMAScript modules import what it uses.

import three from 'engine.io-3';
import four from 'engine.io-4';
import five from 'engine.io-5';
import { Server as Six } from 'engine.io-6';
import { Server } from 'socket.io';

import app from './preload-app.cjs';

app.run({ 3: three.Server, 4: four.Server, 5: five.Server, 6: Six }, Server);
