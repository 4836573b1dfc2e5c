// pm2 runs haft as one process, and haft runs the workers: pm2 start ecosystem.config.js
module.exports = {
  apps: [
    {
      name: 'app',
      // The path of the program, as `which haft` prints it; it is no script, so no interpreter runs it.
      script: 'haft',
      interpreter: 'none',
      args: '-- node server.js',
      exec_mode: 'fork',
      instances: 1,
      // More than haft's --drain-timeout (25s).
      kill_timeout: 40000,
      // haft stops in order on SIGTERM as on SIGINT, which pm2 sends.
      env: { NODE_ENV: 'production', HAFT_FLAG_WORKERS: 'auto' },
    },
  ],
};
